"""The cluster and the node pools that a command works on.

Doesn't belong here: what is done to them (gpu.py, cleanup.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab_pipelines.cli.console import fail
from lab_pipelines.deployment import Deployment

if TYPE_CHECKING:
    from resources.billing import Billing
    from resources.cluster import Cluster
    from resources.gpu_switch import GpuSwitch
    from resources.node_pools import NodePools


@dataclass(frozen=True)
class Place:
    """What a target's resources are to a command that looks after them."""

    settings: Deployment
    cluster: Cluster
    node_pools: NodePools
    billing: Billing
    gpu_switch: GpuSwitch


def place_of(settings: Deployment) -> Place:
    """The target's cluster and pools; nothing is asked yet. Ends the program for a target that can't run labs."""
    from lab_pipelines.build import RESOURCES

    if settings.target not in RESOURCES:
        fail(f"target {settings.target} can't run labs yet; --target is one of: {', '.join(RESOURCES)}")
    found: dict[str, Any] = RESOURCES[settings.target](settings)
    return Place(settings, found["cluster"], found["node_pools"], found["billing"], found["gpu_switch"])


def require_pools(place: Place) -> None:
    """End the program on a target whose nodes nobody can give or take."""
    from resources.node_pools import NoNodePools

    if isinstance(place.node_pools, NoNodePools):
        fail(f"target {place.settings.target} has no node pools; use --target aks")
