"""A run that is killed while it holds a slot of a pool doesn't let the next one wait for ever, with no daemon there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from lab_pipelines.dead_runs import GPU_POOL, settle_dead_runs
from tests.support.main_command import Place, prepared, start

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with prepared(tmp_path / "place") as place:
        yield place


def test_the_next_run_frees_the_slot_of_a_killed_one_and_goes_on(place: Place) -> None:
    killed = start(place, pace="smoke")
    killed.wait_for(lambda: True if "stage 1/" in killed.output() else None)
    with DagsterInstance.from_config(str(place.home)) as instance:
        assert settle_dead_runs(instance) == [], "a run that is alive is left alone"
        killed.process.kill()
        killed.process.wait()
        held = instance.event_log_storage.get_concurrency_info(GPU_POOL).active_run_ids
        assert len(held) == 1, "it was killed while it held the slot"
        following = start(place, pace="smoke")
        assert following.wait() == 0, following.output()
        assert f"run {next(iter(held))} was killed" in following.output()
        statuses = {record.dagster_run.run_id: record.dagster_run.status for record in instance.get_run_records()}
        assert statuses.pop(next(iter(held))) == DagsterRunStatus.FAILURE
        assert set(statuses.values()) == {DagsterRunStatus.SUCCESS}
        assert instance.event_log_storage.get_concurrency_info(GPU_POOL).active_run_ids == set()
