"""reaper: ends what expired leases and dead runs left behind, and gives back the nodes that nobody holds.

Every minute, by labels, tags and age alone: it needs no record of ours, and what one tick doesn't finish the next one
does. Doesn't belong here: what is over and why (resources/ownership.py, leases.py, node_holds.py).
"""

from __future__ import annotations

from dagster import DefaultSensorStatus, SensorEvaluationContext, SkipReason, sensor

from lab_pipelines.sensors.common import EVERY_S
from lab_pipelines.words import counted
from resources.cluster import Cluster


@sensor(
    description="Ends what expired leases and dead runs left behind, and gives back the nodes that nobody holds.",
    minimum_interval_seconds=EVERY_S,
    default_status=DefaultSensorStatus.RUNNING,
)
def reaper(context: SensorEvaluationContext, cluster: Cluster) -> SkipReason:
    reaped = cluster.reap()
    for one in reaped:
        said = f"{one.lab} (run {one.run_id}): {one.reason}; removed {', '.join(one.removed) or 'nothing'}"
        if one.trouble:
            context.log.warning(f"{said}, since {one.trouble}")
        else:
            context.log.info(said)
    left = cluster.leases()
    held = f"{counted(len(left), 'lease')} left{': ' if left else ''}{', '.join(sorted(one.lab for one in left))}"
    if not reaped:
        return SkipReason(f"nothing to reap; {held}")
    said = "; ".join(f"{one.lab}: {one.reason}{', but it is still there' if one.trouble else ''}" for one in reaped)
    return SkipReason(f"reaped {counted(len(reaped), 'lease')}: {said}; {held}")


sensors = [reaper]
