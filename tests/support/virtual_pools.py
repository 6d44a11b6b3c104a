"""Pools whose nodes start in round times, and pods that ask for their GPUs, for tests of nodes that come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.rehearsal.control_plane import ControlPlane, node_of
from lab_pipelines.rehearsal.node_pools import NodePools, NodeStart, Pool

T4, PLAIN = "Standard_NC4as_T4_v3", "Standard_D4s_v5"
READY_S, DRIVER_S, PULL_S = 300.0, 120.0, 100.0
FIRST_SCAN_S = 5.0


def gpu_pool(
    maximum: int = 1,
    *,
    minimum: int = 0,
    quota_vcpus: int | None = None,
    start_of: Callable[[str], NodeStart] = lambda name: NodeStart(READY_S, DRIVER_S),
) -> Pool:
    """Nodes with one T4 each."""
    sku = load_prices().sku(T4)
    return Pool(
        name="gpu",
        machine=node_of("gpu", T4, sku),
        minimum=minimum,
        maximum=maximum,
        start_of=start_of,
        pull_s_of=lambda node, image: PULL_S,
        vcpus=sku.vcpus,
        quota_vcpus=quota_vcpus,
    )


def plane_with(*pools: Pool) -> tuple[ControlPlane, NodePools]:
    """A cluster from second 0 on: one node without a GPU that stays, and the pools."""
    scaling = NodePools(pools, 0.0, FIRST_SCAN_S)
    system = node_of("system-0", PLAIN, load_prices().sku(PLAIN))
    return ControlPlane("lab-00", [system], scaling), scaling


def gpu_pod(name: str, *, gpus: int = 1, lasts_s: int | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that tolerates the pool's taint and asks for GPUs; `lasts_s` after its placement it is ended."""
    container = {"name": "vllm", "image": "engine:1", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    taint = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    deadline = {} if lasts_s is None else {"activeDeadlineSeconds": lasts_s}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "tolerations": [taint], **deadline, **spec},
    }
