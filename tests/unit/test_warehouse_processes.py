"""Real processes publish and rebuild at once, and are killed at any moment; nothing partial is ever to be seen."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lab_pipelines.files import new_file, sweep_temporaries
from resources.warehouse import Warehouse, WarehouseError, open_snapshot
from tests.support.rows.load import request_row
from tests.support.rows.sessions import event_row

# A fork server that has imported everything: a fresh interpreter needs two seconds, which would leave few kills.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["resources.warehouse", "tests.support.rows.runs", "duckdb", "pandas", "pyarrow.parquet"]
)

Connection = Any
"""Typeshed gives a pipe's ends another type on each platform."""

ROWS = 400
"""Per file: enough for a write to take a while."""


def publish_and_rebuild(data_dir: str, writer: str, count: int, acknowledged: Connection) -> None:
    warehouse = Warehouse(data_dir=data_dir)
    for number in range(count):
        run_id = f"{writer}-{number}"
        new = [request_row(run_id=run_id, request_id=str(n)) for n in range(ROWS)]
        warehouse.publish("requests", new, target="local", lab="L06", run_id=run_id)
        acknowledged.send(run_id)
        warehouse.rebuild()


def start(data_dir: Path, writer: str, count: int) -> tuple[ForkServerProcess, Connection]:
    receiving, sending = processes.Pipe(duplex=False)
    process = processes.Process(target=publish_and_rebuild, args=(str(data_dir), writer, count, sending))
    process.start()
    sending.close()
    return process, receiving


def received(connection: Connection) -> list[str]:
    """What the writer acknowledged before its end."""
    found = []
    try:
        while True:
            found.append(connection.recv())
    except (EOFError, OSError):  # the second: killed in the middle of a message
        return found


def published_runs(warehouse: Warehouse) -> dict[str, int]:
    return {
        row["run_id"]: row["n"] for row in warehouse.query("SELECT run_id, count(*) AS n FROM requests GROUP BY run_id")
    }


def temporaries(data_dir: Path) -> list[Path]:
    return [path for path in data_dir.rglob("*") if ".tmp" in path.name]


@pytest.mark.crash
@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_nothing_partial_and_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    warehouse = Warehouse(data_dir=str(data))
    moments = random.Random(7)
    acknowledged: set[str] = set()
    kills = 0
    deadline = time.monotonic() + 15
    while kills < 25 and time.monotonic() < deadline:
        process, connection = start(data, f"w{kills}", count=1000)
        assert connection.poll(30), "the writer never published"
        first = connection.recv()
        # From here on it is publishing or rebuilding all the time; any wait lands somewhere within.
        process.join(moments.uniform(0, 0.25))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        acknowledged |= {first, *received(connection)}
        kills += 1

        files = list((data / "lake").rglob("*.parquet"))
        assert {pq.ParquetFile(path).metadata.num_rows for path in files} == {ROWS}
        if warehouse.snapshot_path.exists():
            with open_snapshot(warehouse.snapshot_path) as snapshot:
                counted = snapshot.execute("SELECT count(*), count(DISTINCT run_id) FROM requests").fetchone()
            assert counted is not None
            assert counted[0] == counted[1] * ROWS
    assert kills >= 5, "this machine is too slow for the test to mean anything"

    runs = published_runs(warehouse)
    assert acknowledged <= set(runs)
    assert set(runs.values()) == {ROWS}
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("SELECT count(DISTINCT run_id) FROM requests").fetchone() == (len(runs),)
    assert temporaries(data) == [], "the next rebuild sweeps what the dead left"


def test_two_processes_publish_and_rebuild_at_once_without_losing_a_row(tmp_path: Path) -> None:
    data = tmp_path / "data"
    warehouse = Warehouse(data_dir=str(data))
    writers = [start(data, name, count=6) for name in ("a", "b")]
    while any(process.is_alive() for process, _ in writers):
        assert set(published_runs(warehouse).values()) <= {ROWS}, "a reader saw part of a file"
    expected = {f"{name}-{n}" for name in ("a", "b") for n in range(6)}
    assert {run for _, connection in writers for run in received(connection)} == expected
    assert [process.exitcode for process, _ in writers] == [0, 0]
    assert published_runs(warehouse) == dict.fromkeys(expected, ROWS)
    with open_snapshot(warehouse.snapshot_path) as snapshot:
        counted = snapshot.execute("SELECT count(DISTINCT run_id) FROM requests").fetchone()
    assert counted == (len(expected),), "whoever rebuilds last has seen every file"
    assert temporaries(data) == []


def claim(data_dir: str, writer: str, results: Connection) -> None:
    warehouse = Warehouse(data_dir=data_dir)
    won = []
    for number in range(20):
        row = event_row(run_id=f"r{number}", name=writer)
        try:
            warehouse.publish("events", [row], target="local", lab="L06", run_id=f"r{number}")
        except WarehouseError:
            continue
        won.append(number)
    results.send(won)


def test_of_two_processes_that_publish_one_name_exactly_one_succeeds(tmp_path: Path) -> None:
    data = tmp_path / "data"
    won = {}
    writers = []
    for name in ("a", "b"):
        receiving, sending = processes.Pipe(duplex=False)
        process = processes.Process(target=claim, args=(str(data), name, sending))
        process.start()
        writers.append((name, process, receiving))
    for name, process, receiving in writers:
        won[name] = receiving.recv()
        process.join()
    assert sorted(won["a"] + won["b"]) == list(range(20))
    stored = Warehouse(data_dir=str(data)).query("SELECT run_id, name FROM events")
    assert {(row["run_id"], row["name"]) for row in stored} == {(f"r{n}", name) for name in won for n in won[name]}


def hold_a_temporary(path: str, started: Connection) -> None:
    with new_file(Path(path)) as stream:
        stream.write(b"half")
        stream.flush()
        started.send(True)
        signal.pause()


def test_a_dead_writers_temporary_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    receiving, sending = processes.Pipe(duplex=False)
    writer = processes.Process(target=hold_a_temporary, args=(str(tmp_path / "x.parquet"), sending))
    writer.start()
    assert receiving.recv()
    [temporary] = temporaries(tmp_path)
    assert sweep_temporaries(tmp_path) == []
    assert temporary.exists()
    writer.kill()
    writer.join()
    assert sweep_temporaries(tmp_path) == [temporary]
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_with_all_its_content_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.parquet"
    with new_file(path) as stream:
        stream.write(b"half")
        stream.flush()
        assert not path.exists()
        stream.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_file(tmp_path / "x.parquet") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.parquet").write_bytes(b"first")
    with pytest.raises(FileExistsError), new_file(tmp_path / "x.parquet") as stream:
        stream.write(b"second")
    assert (tmp_path / "x.parquet").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1
