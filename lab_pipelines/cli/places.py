"""The cluster and the node pools that a command works on, or asks.

Doesn't belong here: what is done to them (gpu.py, cleanup.py), or local stacks as their files tell of them (stacks.py).

Building them takes as long as importing Dagster, so that only what needs them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab_pipelines.cli.console import explained, fail
from lab_pipelines.deployment import CLUSTER_TARGETS, Deployment

if TYPE_CHECKING:
    from resources.billing import Billing
    from resources.budget_guard import BudgetGuard
    from resources.cluster import Cluster
    from resources.gpu_switch import GpuSwitch
    from resources.node_pools import NodePools
    from resources.spending import Place as MoneyPlace


@dataclass(frozen=True)
class Place:
    """What a target's resources are to a command that looks after them."""

    settings: Deployment
    cluster: Cluster
    node_pools: NodePools
    billing: Billing
    gpu_switch: GpuSwitch
    budget_guard: BudgetGuard

    @property
    def money(self) -> MoneyPlace:
        """Where its money is spent, and where that is on record."""
        from lab_pipelines.cli.options import warehouse_of
        from resources.spending import Place as MoneyPlace

        warehouse = warehouse_of(self.settings)
        return MoneyPlace(self.settings.target, self.cluster, self.node_pools, self.billing, warehouse)


def place_of(settings: Deployment) -> Place:
    """The target's cluster and pools; nothing is asked yet. Raises `DeploymentError` for settings that it lacks."""
    from lab_pipelines.build import RESOURCES

    found: dict[str, Any] = RESOURCES[settings.target](settings)
    names = ("cluster", "node_pools", "billing", "gpu_switch", "budget_guard")
    return Place(settings, **{name: found[name] for name in names})


def require_pools(place: Place) -> None:
    """End the program on a target whose nodes nobody can give or take."""
    if not place.node_pools.gives_nodes:
        fail(f"target {place.settings.target} has no node pools; use --target aks")


def require_usable(settings: Deployment) -> None:
    """End the program with one line where a remote target can't be used at all: what to install, set or sign in to."""
    if settings.target not in CLUSTER_TARGETS:
        return
    from resources.cluster import ClusterError

    with explained(ClusterError):
        place_of(settings).cluster.check()


def left_of(settings: Deployment, lab: str) -> str | None:
    """What is left of a lab's stack on the target, in words; None when its lease is gone."""
    if settings.target in CLUSTER_TARGETS:
        from resources.cluster import ClusterError

        with explained(ClusterError):
            leases = [lease for lease in place_of(settings).cluster.leases() if lease.lab == lab]
        return f"until {leases[0].expires_at:%H:%M:%S} UTC" if leases else None
    from lab_pipelines.cli.stacks import stacks

    return next((stack.state for stack in stacks(settings.data_dir / "state") if stack.lab == lab), None)
