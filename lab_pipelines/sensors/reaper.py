"""reaper: ends what expired leases and dead runs left behind, and gives back the nodes that nobody holds.

Every minute, by labels, tags and age alone: it needs no record of ours, and what one tick doesn't finish the next one
does. Doesn't belong here: what is over and why (resources/ownership.py, leases.py, pool_leases.py).
"""

from __future__ import annotations

from datetime import UTC, datetime

from dagster import DefaultSensorStatus, SensorEvaluationContext, SkipReason, sensor

from lab_pipelines.sensors.common import EVERY_S, counted
from resources.cluster import Cluster, Progress, Reaped
from resources.kube_api import Deadline
from resources.node_pools import NodePools
from resources.pool_leases import reap_pools

POOLS_WITHIN_S = 40.0
"""For all pools of one tick. A tick past a minute would overlap the next."""


def reap_all(cluster: Cluster, node_pools: NodePools, *, progress: Progress) -> tuple[list[Reaped], list[str]]:
    """What was ended, and one line for each pool that would not go.

    Idempotent. Raises `ClusterError` when the cluster or its pools can't be asked.
    """
    ended = cluster.reap()
    pools = node_pools.pools()
    if not pools:
        return ended, []
    over = {one.lease_id for one in ended}  # a namespace that is going away may still be listed
    leases = [lease for lease in cluster.leases() if lease.lease_id not in over]
    reaped, failed = reap_pools(
        node_pools,
        pools,
        leases,
        now=datetime.now(UTC),
        deadline=Deadline.within(POOLS_WITHIN_S),
        progress=progress,
    )
    return [*ended, *reaped], failed


@sensor(
    description="Ends what expired leases and dead runs left behind, and gives back the nodes that nobody holds.",
    minimum_interval_seconds=EVERY_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def reaper(context: SensorEvaluationContext, cluster: Cluster, node_pools: NodePools) -> SkipReason:
    ended, failed = reap_all(cluster, node_pools, progress=context.log.info)
    for one in ended:
        context.log.info(f"{one.lab} (run {one.run_id}): {one.reason}; removed {', '.join(one.removed) or 'nothing'}")
    for line in failed:
        context.log.warning(line)
    left = cluster.leases()
    held = f"{counted(len(left), 'lease')} left{': ' if left else ''}{', '.join(sorted(one.lab for one in left))}"
    if not ended and not failed:
        return SkipReason(f"nothing to reap; {held}")
    removed = "; ".join(f"{one.lab}: {one.reason}" for one in ended)
    trouble = f"; {counted(len(failed), 'pool')} would not go: {'; '.join(failed)}" if failed else ""
    return SkipReason(f"reaped {counted(len(ended), 'lease')}{': ' if ended else ''}{removed}{trouble}; {held}")


sensors = [reaper]
