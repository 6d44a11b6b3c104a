"""Who holds a node pool's nodes until when, and the end of those that nobody holds any more.

A pool that was given nodes under a lease carries the lease's labels as tags (ownership.py). It is held while that
lease is good, and until the time that its own tag says: a lease is renewed every minute, and no pool's tag can follow.

Doesn't belong here: pools without a lease, which are the scale-to-zero sensor's (lab_pipelines/gpu_policy.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from lab_pipelines.catalog.prices import UnknownPriceError, load_prices
from lab_pipelines.gpu_policy import SETTLED, Hold, PoolState
from resources.cluster import Cluster, ClusterError, Lease, Progress, Reaped
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NodePools, PoolChangedError, PoolError
from resources.ownership import EXPIRES_LABEL, LAB_LABEL, LEASE_LABEL, LONGEST, RUN_LABEL

NO_LEASE: Mapping[str, None] = dict.fromkeys((LEASE_LABEL, RUN_LABEL, EXPIRES_LABEL))
"""Tags to set when a pool's nodes are taken away. The lab's own tag stays: costs that come in later are split by it."""
BY_HAND = "by-hand"
"""In the place of a lab, and before the run's name: somebody gave the pool nodes with `labs gpu up`."""
RELEASE_WITHIN_S = 20.0
Gone = Literal["done", "under_way"]
"""Whether the nodes are gone, or Azure is at it: that takes minutes, and no tick waits for it."""


def holds(pool: NodePool, leases: Sequence[Lease], *, now: datetime) -> tuple[Hold, ...]:
    """The leases that hold the pool now. Pure."""
    lease_id, lab = pool.tags.get(LEASE_LABEL), _lab_of(pool)
    found = [
        Hold(lab=lease.lab, lease_id=lease.lease_id, until=lease.expires_at)
        for lease in leases
        if lease.lease_id == lease_id and lease.expires_at > now
    ]
    said = said_until(pool)
    if said is not None and now < said <= now + LONGEST:
        found.append(Hold(lab=lab, lease_id=lease_id or "none", until=said))
    return tuple(found)


def _lab_of(pool: NodePool) -> str:
    """Of the lease that the pool's tags tell of."""
    if pool.tags.get(RUN_LABEL, "").startswith(BY_HAND):
        return BY_HAND
    return pool.tags.get(LAB_LABEL, "unknown").upper()


def said_until(pool: NodePool) -> datetime | None:
    """What the pool's own tag says; None for a tag that is missing or no time."""
    said = pool.tags.get(EXPIRES_LABEL, "")
    return datetime.fromtimestamp(int(said), UTC) if re.fullmatch(r"[0-9]{1,11}", said) else None


def why_over(pool: NodePool, leases: Sequence[Lease], *, now: datetime) -> str | None:
    """Why the reaper should take the pool's nodes away, or None. Pure: only what is ours, has nodes, and had a lease.

    A tag that is no time, or further ahead than any lease of ours may last, counts as over.
    """
    if not pool.ours or pool.count == 0 or pool.mode != "User":
        return None
    if LEASE_LABEL not in pool.tags and EXPIRES_LABEL not in pool.tags:
        return None
    if holds(pool, leases, now=now):
        return None
    said = said_until(pool)
    if said is None:
        return "its lease is gone, and no tag says until when it may have nodes"
    if said > now:
        return f"its tag says until {said:%Y-%m-%d %H:%M:%S} UTC, and no lease of ours lasts longer than {LONGEST}"
    return f"its lease is gone or over, and its tag said until {said:%Y-%m-%d %H:%M:%S} UTC"


def reap_pools(
    node_pools: NodePools,
    pools: Sequence[NodePool],
    leases: Sequence[Lease],
    *,
    now: datetime,
    deadline: Deadline,
    progress: Progress,
) -> tuple[list[Reaped], list[str]]:
    """Take the nodes of every pool whose lease is over; what was ended, and one line for each that would not go.

    `pools` must have been read before `leases`: a lease is made before its pool's tags. Each pool is written only if
    it is still as it was read, so one that a run takes in between is left to it.
    """
    reaped, failed = list[Reaped](), list[str]()
    for pool in pools:
        reason = why_over(pool, leases, now=now)
        if reason is None:
            continue
        try:
            to_zero(node_pools, pool, deadline=deadline, progress=progress)
        except ClusterError as error:
            failed.append(f"{pool.name}: {error}")
            continue
        reaped.append(
            Reaped(
                lease_id=pool.tags.get(LEASE_LABEL, "none"),
                lab=_lab_of(pool),
                run_id=pool.tags.get(RUN_LABEL, "unknown"),
                reason=reason,
                removed=[f"{pool.count} nodes of pool {pool.name}"],
            )
        )
    return reaped, failed


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


def usd_per_h(pool: NodePool, region: str) -> Decimal | None:
    """List price of all the pool's nodes for an hour, spot where it is a spot pool; None: no price is known."""
    try:
        price = load_prices().price(pool.vm_size, region)
    except UnknownPriceError:
        return None
    each = price.spot if pool.spot else price.on_demand
    return None if each is None else each * pool.count


def state_of(pool: NodePool, region: str) -> PoolState:
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
        usd_per_h=usd_per_h(pool, region),
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
