"""After a run that failed or was cancelled: release what it still holds.

Cancelling a run fires no failure hook and no failure sensor, hence one for each. Doesn't belong here: runs that died
without an end (reaper.py).
"""

from __future__ import annotations

from dagster import DagsterRunStatus, DefaultSensorStatus, RunStatusSensorContext, run_status_sensor

from lab_pipelines.sensors.common import EVERY_S
from resources.cluster import Cluster
from resources.node_pools import NodePools
from resources.pool_leases import release_run


def _release(context: RunStatusSensorContext, cluster: Cluster, node_pools: NodePools) -> None:
    # Nothing is returned: Dagster would end the tick with the first run that something is returned for.
    run_id = context.dagster_run.run_id
    released = release_run(cluster, node_pools, run_id, progress=context.log.info)
    context.log.info(f"run {run_id}: {', '.join(released) + ' released' if released else 'held nothing any more'}")


@run_status_sensor(
    run_status=DagsterRunStatus.FAILURE,
    # Runs of `dagster asset materialize` belong to no code location. Those of others hold no lease of ours.
    monitor_all_code_locations=True,
    minimum_interval_seconds=EVERY_S // 2,
    default_status=DefaultSensorStatus.RUNNING,
    description="Releases what a failed run still holds.",
)
def release_after_failure(context: RunStatusSensorContext, cluster: Cluster, node_pools: NodePools) -> None:
    _release(context, cluster, node_pools)


@run_status_sensor(
    run_status=DagsterRunStatus.CANCELED,
    monitor_all_code_locations=True,
    minimum_interval_seconds=EVERY_S // 2,
    default_status=DefaultSensorStatus.RUNNING,
    description="Releases what a cancelled run still holds.",
)
def release_after_cancel(context: RunStatusSensorContext, cluster: Cluster, node_pools: NodePools) -> None:
    _release(context, cluster, node_pools)


sensors = [release_after_failure, release_after_cancel]
