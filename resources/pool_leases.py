"""Who holds a node pool's nodes until when, for those who look at pools: the sensor and the command line.

A pool that was given nodes under a lease carries the lease's labels as tags (ownership.py).

Doesn't belong here: what a lab's own run does to pools, and the reaper (node_holds.py), or whether a pool that nobody
holds is idle (lab_pipelines/gpu_policy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from lab_pipelines.catalog.prices import PriceSheet, UnknownPriceError
from lab_pipelines.gpu_policy import SETTLED, Hold, PoolState
from resources.cluster import Cluster, Lease, Progress
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NodePools, PoolChangedError, PoolError
from resources.ownership import (
    BY_HAND,
    LAB_LABEL,
    LEASE_LABEL,
    LONGEST,
    NO_LEASE,
    RUN_LABEL,
    is_by_hand,
    pool_tag_until,
)

RELEASE_WITHIN_S = 20.0
Gone = Literal["done", "under_way"]
"""Whether the nodes are gone, or Azure is at it: that takes minutes, and no tick waits for it."""


def holds(pool: NodePool, leases: Sequence[Lease], *, now: datetime) -> tuple[Hold, ...]:
    """The leases that hold the pool now; for nodes given by hand, until what its own tag says. Pure."""
    lease_id = pool.tags.get(LEASE_LABEL)
    found = [
        Hold(lab=lease.lab, lease_id=lease.lease_id, until=lease.expires_at)
        for lease in leases
        if lease.lease_id == lease_id and lease.expires_at > now
    ]
    said = pool_tag_until(pool.tags)
    if is_by_hand(pool.tags) and said is not None and now < said <= now + LONGEST:
        found.append(Hold(lab=BY_HAND, lease_id=lease_id or "none", until=said))
    return tuple(found)


def to_zero(node_pools: NodePools, pool: NodePool, *, deadline: Deadline, progress: Progress) -> Gone:
    """Take all nodes of a pool away, and its lease's tags, if it is still as `pool` says. Raises `PoolError`."""
    try:
        scaled = node_pools.scale(pool, 0, tags=NO_LEASE, deadline=deadline, progress=progress)
    except PoolChangedError:
        raise
    except PoolError:
        found = node_pools.pool(pool.name)
        if found.etag == pool.etag or (found.count > 0 and found.state in SETTLED):
            raise
        progress(f"pool {pool.name} is going from {pool.count} to 0 nodes; its state is {found.state}")
        return "under_way"
    progress(f"pool {pool.name} went from {scaled.before} to {scaled.after} nodes")
    return "done"


def usd_per_h(pool: NodePool, sheet: PriceSheet, region: str) -> Decimal | None:
    """List price of all the pool's nodes for an hour, spot where it is a spot pool; None: no price is known."""
    try:
        each = sheet.unit_price(pool.vm_size, region, pool.priority).usd
    except UnknownPriceError:
        return None
    return each * pool.count


def state_of(pool: NodePool, sheet: PriceSheet, region: str) -> PoolState:
    """The pool in what the scale-to-zero decision needs of it."""
    return PoolState(
        name=pool.name,
        vm_size=pool.vm_size,
        mode=pool.mode,
        count=pool.count,
        ours=pool.ours,
        autoscaled=pool.autoscaled,
        spot=pool.spot,
        state=pool.state,
        usd_per_h=usd_per_h(pool, sheet, region),
    )


def held_pools(pools: Sequence[NodePool], lab: str, leases: Sequence[Lease]) -> list[NodePool]:
    """Our pools with nodes that `leases`, which are the lab's, hold, or whose own tags say that it does. Pure."""
    ids = {lease.lease_id for lease in leases}
    return [
        pool
        for pool in pools
        if pool.ours
        and pool.count > 0
        and LEASE_LABEL in pool.tags
        and (pool.tags[LEASE_LABEL] in ids or pool.tags.get(LAB_LABEL, "").upper() == lab)
    ]


def release_run(cluster: Cluster, node_pools: NodePools, run_id: str, *, progress: Progress) -> list[str]:
    """Release every lab that the run holds, and the nodes of pools that carry its id; the names of both.

    Idempotent. Raises `ClusterError`.
    """
    released = [
        lease.lab
        for lease in cluster.leases()
        if lease.run_id == run_id and cluster.release(lease.lab, run_id=run_id) is not None
    ]
    for pool in node_pools.pools():
        if pool.ours and pool.count > 0 and pool.tags.get(RUN_LABEL) == run_id:
            to_zero(node_pools, pool, deadline=Deadline.within(RELEASE_WITHIN_S), progress=progress)
            released.append(f"pool {pool.name}")
    return released
