"""The contract of a cluster's node pools: see them, give one a number of nodes, and bring it back to zero.

Belongs here: the abstract `NodePools`, its records, the choice of a pool for a lab, and which pools are over. Doesn't
belong here: Azure (node_pools_azure.py), who may hold nodes until when (ownership.py), or the nodes that a scheduler
sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from dagster import ConfigurableResource

from lab_pipelines.catalog.prices import Priority
from resources.cluster import ClusterError, Progress, Record
from resources.kube_api import Deadline
from resources.ownership import LAB_LABEL, LEASE_LABEL, RUN_LABEL, pool_is_ours, why_pool_over

USER_MODE = "User"
STOPPED = "Stopped"


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
    """Nodes asked for: what Azure brings about, or has."""
    autoscaled: bool
    spot: bool
    tags: dict[str, str]
    labels: dict[str, str]
    """Of its nodes."""
    taints: list[str]
    """Of its nodes, as `sku=gpu:NoSchedule`."""
    state: str
    """Azure's provisioning state: `Succeeded`, `Updating`, `Failed`, …; `Stopped` for a pool whose machines are off."""
    etag: str | None

    @property
    def ours(self) -> bool:
        return pool_is_ours(self.tags)

    @property
    def priority(self) -> Priority:
        return "spot" if self.spot else "on_demand"


class Scaled(Record):
    """What became of a request for nodes. Times are Azure's where it gives them, else this machine's clock."""

    pool: str
    before: int
    """Nodes that it had, so that the decision can be undone."""
    after: int
    requested_at: datetime
    done_at: datetime


class NodePools(ConfigurableResource, ABC):
    """The pools of one cluster. Every method raises `ClusterError` when their provider can't be used at all."""

    gives_nodes: ClassVar[bool] = True
    """Whether there are pools to scale at all. False: a cluster's nodes are as they are."""

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
        A pool that already is as asked for is left alone. At zero, take the lease's tags away alone
        (`ownership.NO_LEASE`): machines are billed by the tags of the hour in which they go.
        """

    @abstractmethod
    def begin_scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> datetime:
        """As `scale`, but done once the request is taken, which was at the time returned; the nodes follow in minutes.

        For the reaper and for sensors, whose ticks are short. What becomes of it, the next tick sees.
        """


class NoNodePools(NodePools):
    """For a cluster whose nodes nobody can give or take: there are none to scale."""

    gives_nodes: ClassVar[bool] = False

    def pools(self) -> list[NodePool]:
        return []

    def pool(self, name: str) -> NodePool:
        raise PoolError(f"this target has no node pools, so none called {name}; use --target aks")

    def scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> Scaled:
        raise PoolError(f"this target has no node pools to scale; {pool.name} stays as it is")

    def begin_scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> datetime:
        raise PoolError(f"this target has no node pools to scale; {pool.name} stays as it is")


def choose_pool(pools: Sequence[NodePool], *, sku: str, spot: bool = False) -> NodePool:
    """Our pool of machines `sku`. Pure. Raises `PoolError` that names the pools there are and what is missing."""
    # A system pool could never be brought back to zero.
    ours = [pool for pool in pools if pool.ours and pool.mode == USER_MODE]
    fitting = [pool for pool in ours if pool.vm_size.lower() == sku.lower() and pool.spot == spot]
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


class PoolOver(Record):
    """A pool of ours that has nodes nobody may hold any more. Lab, run and lease are its tags'; None: it has none."""

    pool: NodePool
    reason: str
    lab: str | None
    run_id: str | None
    lease_id: str | None


def pools_over(pools: Sequence[NodePool], good_leases: Collection[str] | None, now: datetime) -> list[PoolOver]:
    """Which pools should go back to zero, and why. Pure: by tags and age alone.

    Never a pool that isn't ours, one without nodes, a system pool, or one whose tag names a good lease. `good_leases`
    are the ids of the leases that are neither over nor ending, read *after* `pools`: a pool gets its tags after its
    lease was made, so that a lease that is missing has ended. None: the leases can't be read, which is no sign that one
    has ended; then only a pool that is older than any lease is over.
    """
    known = None if good_leases is None else frozenset(good_leases)
    return [
        PoolOver(
            pool=pool,
            reason=reason,
            lab=pool.tags.get(LAB_LABEL, "").upper() or None,
            run_id=pool.tags.get(RUN_LABEL),
            lease_id=pool.tags.get(LEASE_LABEL),
        )
        for pool in pools
        if pool.ours and pool.mode == USER_MODE and pool.count > 0 and pool.state != STOPPED
        and (reason := why_pool_over(pool.tags, known, now)) is not None
    ]  # fmt: skip
