"""A run that is killed or interrupted leaves nothing behind: at once where it can still act, else by the next start."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from lab_pipelines.files import TEMPORARY
from resources.warehouse import Warehouse, open_snapshot
from tests.support.main_command import Place, Run, alive_by_lease, lease_of, prepared, processes_of, start

pytestmark = [pytest.mark.crash, pytest.mark.slow]

KILLS = 10
SEED = int(os.environ.get("LABS_CRASH_SEED", "6"))
"""Another seed, other moments; the machine's own jitter does the rest."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with prepared(tmp_path / "place") as place:
        yield place


def assert_only_the_leased_stack_is_alive(place: Place, when: str) -> None:
    """Whatever is alive has a label, and its label is that of the lease on file.

    Dagster mirrors a step's output by two `tail`, each with a watcher that looks every second whether the run is
    still there. They have no label, since they end by themselves.
    """
    psutil.wait_procs([process for process in processes_of(place) if lease_of(process) is None], timeout=20)
    lease = place.lease()
    alive = alive_by_lease(place)
    expected = {lease.lease.lease_id} if lease else set()
    assert set(alive) <= expected, f"{when}: lease on file {expected or 'none'}, alive {alive}"


def assert_lake_is_whole(place: Place) -> int:
    """Every published file can be read in full and belongs where it is; how many there are."""
    published = sorted((place.data_dir / "lake").rglob("*.parquet"))
    for path in published:
        pq.ParquetFile(path).read()
    Warehouse(data_dir=str(place.data_dir)).query("SELECT count(*) FROM load_stages")
    return len(published)


def assert_snapshot_answers(place: Place) -> None:
    if place.snapshot.exists():
        with open_snapshot(place.snapshot) as connection:
            tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
            assert "load_stages" in tables
            for table in tables:
                connection.execute(f'SELECT * FROM "{table}"').fetchall()


def kill_after(run: Run, delay_s: float) -> None:
    try:
        run.process.wait(delay_s)
    except subprocess.TimeoutExpired:
        run.process.kill()
        run.process.wait()


@pytest.mark.timeout(600)
def test_ten_kills_spread_over_the_run_leave_nothing_that_the_next_start_does_not_clear(place: Place) -> None:
    began = time.monotonic()
    whole = start(place, pace="smoke")
    assert whole.wait() == 0, whole.output()
    length_s = time.monotonic() - began
    assert processes_of(place) == []
    files = assert_lake_is_whole(place)

    random_ = random.Random(SEED)
    moments = [(tenth + random_.random()) / KILLS * length_s for tenth in range(KILLS)]
    random_.shuffle(moments)
    print(f"a run takes {length_s:.1f} s; seed {SEED} kills at {', '.join(f'{m:.1f}' for m in moments)} s")

    orphaned, reaped = set[str](), set[str]()
    for number, moment in enumerate(moments):
        run = start(place, pace="smoke")
        kill_after(run, moment)
        when = f"kill {number} at {moment:.1f} s"
        assert_only_the_leased_stack_is_alive(place, when)
        now_alive = {lease_id for lease_id in alive_by_lease(place) if lease_id}
        reaped |= orphaned - now_alive
        orphaned |= now_alive
        grown = assert_lake_is_whole(place)
        assert grown >= files, when
        files = grown
        assert_snapshot_answers(place)
    # Otherwise the kills have missed the stacks, and nothing above has been put to the test.
    assert len(orphaned) >= KILLS // 4 and reaped

    final = start(place, pace="smoke")
    assert final.wait() == 0, final.output()
    assert processes_of(place) == []
    assert place.lease() is None
    assert assert_lake_is_whole(place) > files
    assert list(place.data_dir.rglob(f"*{TEMPORARY}")) == []
    assert place.snapshot.exists()
    assert_snapshot_answers(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_interrupted_under_load_fails_and_takes_its_stack_with_it(
    place: Place, number: signal.Signals
) -> None:
    run = start(place, pace="short")  # its first stage lasts half a minute
    run.wait_for(lambda: under_load(place) or None)
    assert len(processes_of(place)) >= 4  # the run, the server, Prometheus, Locust
    run.process.send_signal(number)
    assert run.wait() != 0
    assert alive_by_lease(place) == {}
    assert place.lease() is None
    assert_lake_is_whole(place)


def under_load(place: Place) -> bool:
    """Whether the server works for a request of the load."""
    lease = place.lease()
    if lease is None or not lease.sessions:
        return False
    page = lease.sessions[-1].endpoint("vllm").metrics_url
    assert page is not None
    with urllib.request.urlopen(page, timeout=5) as response:
        lines = response.read().decode().splitlines()
    return any(line.startswith("vllm:num_requests_running{") and float(line.split()[-1]) > 0 for line in lines)
