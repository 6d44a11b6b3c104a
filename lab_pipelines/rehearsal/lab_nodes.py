"""From a lab's spec to the nodes of its cluster: which stay, which pools scale, and the engine's pod on them.

Belongs here: what a spec, a price sheet and a seed say about nodes. Doesn't belong here: how nodes come and go
(node_pools.py), or what an asset asks of a cluster (resources/cluster_rehearsal.py).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Nodes, Variant
from lab_pipelines.engine.cold_start import drawn_image_pull, drawn_node_start
from lab_pipelines.rehearsal.control_plane import ControlPlane, node_of
from lab_pipelines.rehearsal.node_pools import GPU, NodePools, NodeStart, Pool, autoscaler_times

Json = dict[str, Any]

SYSTEM_SKU = "Standard_D4s_v5"
"""Of the untainted node that every AKS cluster has for its own pods. It is no part of a lab's cost."""
ENGINE_IMAGE = "vllm/vllm-openai"
"""The one image whose pull has an anchor of its own in engine/cold_start.yaml; every other counts as small."""


def control_plane_of(
    spec: LabSpec, variant: Variant, *, seed: int, start_s: float, vcpu_quota: int | None
) -> ControlPlane:
    """The control plane of a lab's cluster: its nodes Ready, its scaling pools at their minimum, one node of AKS's own.

    `vcpu_quota`: of each machine family, for pools that scale.
    """
    prices, own = load_prices(), spec.nodes_of(variant)
    fixed = [node_of("system-0", SYSTEM_SKU, prices.sku(SYSTEM_SKU))]
    if own.min_count is None:
        fixed += [node_of(f"{spec.namespace}-{n}", own.sku, prices.sku(own.sku)) for n in range(own.count)]
    scaling = [nodes for nodes in spec.nodes if nodes.min_count is not None]
    if not scaling:
        return ControlPlane(spec.namespace, fixed)
    pools = [_pool(spec, nodes, seed=seed, vcpu_quota=vcpu_quota) for nodes in scaling]
    # Nobody knows how far the autoscaler is in its round when the lab begins.
    phase = random.Random(f"{seed}/{spec.id}/scan").random()
    first_scan_s = start_s + phase * autoscaler_times().scan_interval_s.value
    return ControlPlane(spec.namespace, fixed, NodePools(pools, start_s, first_scan_s))


def _pool(spec: LabSpec, nodes: Nodes, *, seed: int, vcpu_quota: int | None) -> Pool:
    sku, first = load_prices().sku(nodes.sku), nodes.sku == spec.nodes[0].sku
    name = spec.namespace if first else f"{spec.namespace}-{nodes.sku.lower().replace('_', '-')}"

    def start_of(node: str) -> NodeStart:
        phases = drawn_node_start(sku.gpu, random.Random(f"{seed}/{spec.id}/{node}"))
        took_s = {phase.name: phase.duration_s for phase in phases}
        return NodeStart(took_s["node_ready"], took_s.get("driver_ready", 0.0))

    def pull_s_of(node: str, image: str) -> float:
        if image.partition(":")[0] != ENGINE_IMAGE:
            return autoscaler_times().small_image_s.value
        return drawn_image_pull(sku.gpu, random.Random(f"{seed}/{spec.id}/{node}/{image}")).duration_s

    assert nodes.min_count is not None
    return Pool(
        name=name,
        machine=node_of(name, nodes.sku, sku),
        minimum=nodes.min_count,
        maximum=nodes.count,
        start_of=start_of,
        pull_s_of=pull_s_of,
        vcpus=sku.vcpus,
        quota_vcpus=vcpu_quota,
    )


def engine_pod(name: str, values: Mapping[str, Any], *, gpus: int) -> Json:
    """The pod of a vllm-stack release as far as a scheduler looks at it. `gpus`: unless the values say how many.

    Source: production-stack 0.1.12, helm/templates/deployment-vllm-multi.yaml.
    """
    engine = values["servingEngineSpec"]
    model = engine["modelSpec"][0]
    limits = {GPU: str(model.get("requestGPU", gpus))}
    asked = {"cpu": model.get("requestCPU"), "memory": model.get("requestMemory")}
    requests = {resource: str(amount) for resource, amount in asked.items() if amount is not None}
    spec: Json = {
        "containers": [
            {
                "name": "vllm",
                "image": f"{model['repository']}:{model['tag']}",
                "resources": {"requests": {**requests, **limits}, "limits": limits},
            }
        ],
        "tolerations": model.get("tolerations") or engine.get("tolerations") or [],
    }
    if terms := model.get("nodeSelectorTerms"):
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        spec["affinity"] = {"nodeAffinity": required}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
