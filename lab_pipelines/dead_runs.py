"""Runs of `dagster asset materialize` whose process was killed: Dagster leaves them STARTED, their pools' slots taken.

Run monitoring looks after runs that a launcher started; nothing looks after these, and without a daemon nothing looks
at all. A slot that such a run holds would let the next run wait for ever.

Doesn't belong here: what such a run left running, which its lease tells (resources/leases.py, sensors/reaper.py).
"""

from __future__ import annotations

import re

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

GPU_POOL, WAREHOUSE_POOL = "gpu", "warehouse"
"""Dagster's pools: one load at a time on one machine, one writer of labs.duckdb (deploy/local/dagster.yaml)."""
_UNDER_WAY = [DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]
_IN_PROCESS = re.compile(r"in process \(pid: (\d+)\)")


def settle_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark runs as failed whose process is dead, and free their slots; the ids of these runs.

    Only where runs are kept in files of this machine: a process id of another machine says nothing here.
    """
    from dagster._core.storage.runs import SqliteRunStorage

    if instance.is_ephemeral or not isinstance(instance.run_storage, SqliteRunStorage):
        return []
    dead = [run for run in instance.get_runs(RunsFilter(statuses=_UNDER_WAY)) if _is_dead(instance, run)]
    for run in dead:
        instance.report_run_failed(run, "its process is dead, and nobody was left to say so")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _is_dead(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether a run of the command line has lost the process that executes it."""
    import psutil

    if run.remote_job_origin is not None:
        return False  # a launcher's: run monitoring knows how to ask
    for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = _IN_PROCESS.search(entry.user_message or entry.message or "")
        if found is None:
            continue
        try:
            # A younger process has the number of the dead one.
            return psutil.Process(int(found[1])).create_time() > entry.timestamp
        except psutil.NoSuchProcess:
            return True
    return False
