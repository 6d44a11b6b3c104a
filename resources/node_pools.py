"""The contract of a cluster's node pools: see them, give one a number of nodes, and bring it back to zero.

Belongs here: the abstract `NodePools`, its records, and the choice of a pool for a lab. Doesn't belong here: Azure
(node_pools_azure.py), who may hold nodes until when (ownership.py), or the nodes that a scheduler sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime

from dagster import ConfigurableResource

from resources.cluster import ClusterError, Progress, Record
from resources.kube_api import Deadline
from resources.ownership import pool_is_ours


class PoolError(ClusterError):
    """A pool can't be had as asked. The message names the pool, what Azure said, and what to do."""


class PoolChangedError(PoolError):
    """Somebody else has changed the pool since it was read: decide anew."""


class NodePool(Record):
    """One pool as it was read."""

    name: str
    vm_size: str
    mode: str
    """`User`, or `System`, which can't reach zero."""
    count: int
    autoscaled: bool
    spot: bool
    tags: dict[str, str]
    labels: dict[str, str]
    """Of its nodes."""
    taints: list[str]
    """Of its nodes, as `sku=gpu:NoSchedule`."""
    state: str
    """Azure's provisioning state: `Succeeded`, `Updating`, `Failed`, …"""
    etag: str | None

    @property
    def ours(self) -> bool:
        return pool_is_ours(self.tags)


class Scaled(Record):
    """What became of a request for nodes. Times are Azure's where it gives them, else this machine's clock."""

    pool: str
    before: int
    """Nodes that it had, so that the decision can be undone."""
    after: int
    requested_at: datetime
    done_at: datetime


class NodePools(ConfigurableResource, ABC):
    """The pools of one cluster."""

    @abstractmethod
    def pools(self) -> list[NodePool]:
        """Every pool of the cluster, ours or not. Raises `PoolError`."""

    @abstractmethod
    def pool(self, name: str) -> NodePool:
        """One pool, read now. Raises `PoolError`."""

    @abstractmethod
    def scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> Scaled:
        """Give the pool `count` nodes and set `tags` (None removes one), if it is still as `pool` says; wait for it.

        Waits for an operation of somebody else to end first. Turns an autoscaler off, which would scale back, and says
        so. Raises `PoolChangedError` when the pool's ETag is another by now, `PoolError` for a pool that isn't ours, a
        quota that is used up, a system pool at zero, and a deadline that has passed; the message says which.
        """


class NoNodePools(NodePools):
    """For a cluster whose nodes nobody can give or take: there are none to scale."""

    def pools(self) -> list[NodePool]:
        return []

    def pool(self, name: str) -> NodePool:
        raise PoolError(f"this target has no node pools, so none called {name}; use --target aks")

    def scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> Scaled:
        raise PoolError(f"this target has no node pools to scale; {pool.name} stays as it is")


def choose_pool(pools: Sequence[NodePool], *, sku: str, spot: bool = False) -> NodePool:
    """Our pool of machines `sku`. Pure. Raises `PoolError` that names the pools there are and what is missing."""
    fitting = [pool for pool in pools if pool.ours and pool.vm_size.lower() == sku.lower() and pool.spot == spot]
    if len(fitting) == 1:
        return fitting[0]
    seen = ", ".join(f"{pool.name} ({pool.vm_size}{', ours' if pool.ours else ''})" for pool in pools) or "none"
    if fitting:
        names = ", ".join(pool.name for pool in fitting)
        raise PoolError(f"{names}: more than one pool of ours has {sku}; tag only one of them")
    raise PoolError(
        f"no pool of ours has {'spot ' if spot else ''}machines {sku}; the cluster has: {seen}. "
        "Make one (terraform/aks/), or set the tag lab-pipelines=managed on an existing user pool"
    )
