"""What stands around the run of a cell: the labs, the node pools, the neighbours, and the run that takes over.

Belongs here: what there is before anything happens. Doesn't belong here: what happens (fault_world.py).
"""

from __future__ import annotations

import time
from typing import Any

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from resources import ownership
from tests.support.azure_arm import AzureArm
from tests.support.fault_cells import Stack
from tests.support.kube_api import KubeApi
from tests.support.lab_cluster import T4

Json = dict[str, Any]

A100 = "Standard_NC24ads_A100_v4"
POOLS = {"t4": T4, "a100": A100}
"""Those that the labs here use."""
LAB = "lab-07"
OTHERS = "0123456789abcdef0123456789abcdef"
"""The lease of another run, which is alive on another machine."""
TAKERS = "fedcba9876543210fedcba9876543210"
"""The lease of the run that takes the lab over."""
ELSEWHERE = "another-machine"


def add_neighbours(api: KubeApi, arm: AzureArm) -> None:
    """Others' things, many of which look like a lab's, and another lab's of ours, whose lease is good."""
    later = str(int(time.time()) + 3600)
    theirs = {ownership.LEASE_LABEL: OTHERS, ownership.EXPIRES_LABEL: later, "lab": "l42", "run-id": "theirs"}
    managed = {ownership.MANAGED_BY_LABEL: ownership.MANAGED_BY}
    owner = {"lab-pipelines/owner": f"{ELSEWHERE}/1:1.00", "lab-pipelines/lab": "L42"}
    api.seed(
        *_namespace("lab-99", {}),
        *_namespace("lab-070", managed),
        *_namespace("lab-08", {"lab": "l08", ownership.EXPIRES_LABEL: "1"}),
        *_namespace("lab-42", {**theirs, **managed}, owner),
        _cluster_role("lab-07-vllm", {}),
        _cluster_role("lab-07-exporter", managed),
        _cluster_role("lab-42-exporter", theirs),
        {**_cluster_role("lab-07", {"lab": "l07"}), "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass"},
    )
    arm.add("system", mode="System", count=2, vmSize="Standard_D4s_v5")
    arm.add("foreign", tags={"team": "search"}, count=3, vmSize=T4)
    arm.add("untagged", tags=None, count=1, vmSize=A100)
    arm.add("theirs", tags={ownership.POOL_TAG: "somebody-else", "lab": "l07"}, count=1, vmSize=T4)
    arm.add("l42", tags={**theirs, ownership.POOL_TAG: ownership.POOL_TAG_VALUE}, count=1, vmSize="Standard_NC6s_v3")


def add_taker(api: KubeApi, arm: AzureArm) -> None:
    """The namespace and the nodes of the run that has taken the lab over."""
    labels = {
        ownership.LEASE_LABEL: TAKERS,
        ownership.EXPIRES_LABEL: str(int(time.time()) + 3600),
        ownership.MANAGED_BY_LABEL: ownership.MANAGED_BY,
        "lab": "l07",
        "run-id": "takers",
    }
    owner = {"lab-pipelines/owner": f"{ELSEWHERE}/1:1.00", "lab-pipelines/lab": "L07"}
    api.seed(*_namespace(LAB, labels, owner))
    tags = {name: value for name, value in labels.items() if "/" not in name}
    arm.change("t4", count=1, tags={ownership.POOL_TAG: ownership.POOL_TAG_VALUE, **tags})


def _namespace(name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> list[Json]:
    """A namespace that somebody works in."""
    metadata = {"name": name, "labels": labels, "annotations": annotations or {}}
    inner: Json = {"namespace": name, "labels": {"app.kubernetes.io/instance": "vllm"}}
    spec = {"nodeName": "system-0", "containers": [{"name": "vllm", "image": "somebody/else:1"}]}
    scheduled = {"type": "PodScheduled", "status": "True"}
    status = {"phase": "Running", "conditions": [scheduled, {"type": "Ready", "status": "True"}]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": "Active"}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**inner, "name": "vllm-0"}, "spec": spec, "status": status},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**inner, "name": "notes"}, "data": {"a": "b"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {**inner, "name": "sh.helm.release.v1.vllm.v1"}, "data": {}},
    ]


def _cluster_role(name: str, labels: dict[str, str]) -> Json:
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    return {**kind, "metadata": {"name": name, "labels": labels}}


def _spec(stack: Stack) -> LabSpec:
    """A lab that goes through a part of what labs do to a cluster."""
    if stack == "bare":
        whole = load_catalog().spec("L07").model_dump(mode="json")
        steps = [step for step in whole["steps"] if step["name"] == "first-gpu"]
        nodes = [{"sku": sku, "gpus": 1} for sku in (T4, A100)]
        small, large = ({"id": name, "description": name, "sku": sku} for name, sku in (("small", T4), ("large", A100)))
        whole |= {"nodes": nodes, "variants": [small, large]}
    else:
        whole = load_catalog().spec("L06").model_dump(mode="json")
        steps = [{"kind": kind, "name": kind, "component": "vllm"} for kind in ("stop", "start")]
        other = {"vllm": {"servingEngineSpec.modelSpec[0].vllmConfig.maxNumSeqs": 8}}
        variants = [{"id": "one", "description": "As is"}, {"id": "other", "description": "Small", "values": other}]
        if stack == "load":
            [load] = whole["steps"]
            steps = [load | {"name": "load", "profile": {"kind": "constant", "users": 1}}]
            variants = variants[:1]
        whole |= {"id": "L07", "namespace": LAB, "variants": variants}
    pace = {"time_scale": 40.0, "hold_s": 4.0, "min_requests": 1, "requests_per_user": 1, "max_hold_s": 400.0}
    paces = {"smoke": {**pace, "baseline": False}}
    targets = {"targets": ["aks"], "paces": paces, "default_pace": {"aks": "smoke"}}
    return LabSpec.model_validate(whole | targets | {"steps": steps, "measures": [], "findings": []})


SPECS: dict[Stack, LabSpec] = {"bare": _spec("bare"), "engine": _spec("engine"), "load": _spec("load")}
