"""The nodes of a lease: from nobody's pool at zero to a lab's, back to zero, and back to zero when nobody is left.

Belongs here: what a lease does to the node pools, on every target that has some. Doesn't belong here: a pool's own
operations (node_pools_azure.py), or which pools are over (node_pools.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from lab_pipelines.catalog.stack import Nodes
from resources.cluster import ClusterError, Progress, Reaped
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NodePools, PoolChangedError, PoolError, choose_pool, pools_over
from resources.ownership import LEASE_LABEL, NO_LEASE

UNKNOWN = "unknown"


class Hold(NamedTuple):
    """The pool that a lease has its nodes from, and since when they are there."""

    pool: str
    since: datetime


def hold(
    node_pools: NodePools,
    node: Nodes,
    *,
    tags: Mapping[str, str],
    free_first: bool,
    deadline: Deadline,
    progress: Progress,
) -> Hold | None:
    """Give the lease that `tags` name its nodes. None where nobody gives nodes.

    `free_first`: the nodes of the variant before go to zero first: both at once may be more than a quota allows.
    Raises `PoolError`, also for a pool whose nodes another lease holds.
    """
    if not node_pools.gives_nodes:
        return None
    lease_id = tags[LEASE_LABEL]
    if free_first:
        free(node_pools, lease_id, deadline=deadline, progress=progress)
    while True:
        pool = choose_pool(node_pools.pools(), sku=node.sku, spot=node.priority == "spot")
        holder = pool.tags.get(LEASE_LABEL)
        if pool.count > 0 and holder not in (None, lease_id):
            raise PoolError(
                f"pool {pool.name} has {pool.count} nodes under the lease of {pool.tags.get('lab', UNKNOWN).upper()} "
                f"(run {pool.tags.get('run-id', UNKNOWN)}); wait for that run, or: labs teardown"
            )
        progress(f"pool {pool.name} ({pool.vm_size}): {pool.count} → {node.count} nodes")
        try:
            scaled = node_pools.scale(pool, node.count, tags=tags, deadline=deadline, progress=progress)
            return Hold(pool.name, scaled.done_at)
        except PoolChangedError:
            if deadline.remaining_s == 0:
                raise


def free(node_pools: NodePools, lease_id: str, *, deadline: Deadline, progress: Progress) -> list[str]:
    """Bring every pool that the lease holds back to zero; their names. Idempotent. Raises the first `PoolError`."""
    freed, failures = list[str](), list[ClusterError]()
    for pool in node_pools.pools():
        if not pool.ours or pool.count == 0 or pool.tags.get(LEASE_LABEL) != lease_id:
            continue
        try:
            _to_zero(node_pools, pool, lease_id, deadline, progress)
            freed.append(pool.name)
        except ClusterError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return freed


def reap(
    node_pools: NodePools,
    pools: Sequence[NodePool],
    *,
    good: set[str] | None,
    now: datetime,
    deadline: Deadline,
) -> list[Reaped]:
    """Begin to bring back to zero what no good lease holds, of `pools` as they were read before `good`.

    Doesn't wait for nodes to go: a tick is short, and the next one sees what became of it. A pool that somebody changed
    since, or that can't be changed now, is told with what it said and nothing removed, and left to the next tick.
    """
    reaped = []
    for over in pools_over(pools, good, now):
        removed, trouble = [f"{over.pool.count} nodes of pool {over.pool.name}"], None
        try:
            node_pools.begin_scale(over.pool, 0, tags=NO_LEASE, deadline=deadline, progress=lambda line: None)
        except ClusterError as error:
            removed, trouble = [], str(error)
        reaped.append(
            Reaped(
                lease_id=over.lease_id or UNKNOWN,
                lab=over.lab or UNKNOWN,
                run_id=over.run_id or UNKNOWN,
                reason=over.reason,
                removed=removed,
                trouble=trouble,
            )
        )
    return reaped


def _to_zero(node_pools: NodePools, pool: NodePool, lease_id: str, deadline: Deadline, progress: Progress) -> None:
    """Scale to zero, also when somebody changed the pool in between, as long as the lease still holds it."""
    while True:
        try:
            progress(f"pool {pool.name}: {pool.count} → 0 nodes")
            node_pools.scale(pool, 0, tags=NO_LEASE, deadline=deadline, progress=progress)
            return
        except PoolChangedError:
            pool = node_pools.pool(pool.name)
            if deadline.remaining_s == 0:
                raise
            if pool.count == 0 or pool.tags.get(LEASE_LABEL) != lease_id:
                return
