"""`labs run` and `labs status`: what is refused at once, why a run failed, and that an interrupt reaches the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.cli import app
from lab_pipelines.cli.launch import Ended, Record, materialize_command, read_record, reasons, supervise
from lab_pipelines.cli.stacks import stacks
from lab_pipelines.deployment import REPO_ROOT, TARGETS
from resources.leases import LeaseBook
from resources.warehouse import Warehouse
from tests.support import failing_definitions, main_command
from tests.support.command_line import own_environment, refused
from tests.support.main_command import Place
from tests.support.rows.results import finding_row
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import event_row, session_row
from tests.support.warehouses import publish_run, warehouse_in

Labs = Callable[..., Result]

RUN_ID = "92442aca-6ef7-4698-a9d8-762b6debf012"


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return warehouse_in(tmp_path)


@pytest.fixture
def labs(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labs:
    own_environment(monkeypatch, warehouse.data_dir)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "no-instance"))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


# What labs run refuses


def test_an_outline_is_refused_with_what_is_missing(labs: Labs) -> None:
    message = refused(labs("run", "L78"), 1)
    assert "it is not complete" in message
    assert load_catalog().lab("L78").model_dump()["missing"][0] in message


def test_what_the_lab_does_not_have_is_refused_with_what_it_has(labs: Labs) -> None:
    assert "did you mean L06?" in refused(labs("run", "6"), 2)
    unknown = refused(labs("run", "L06", "--variant", "big"), 2)
    assert "L06 has no variant 'big' on target local; choose from: baseline" in unknown
    assert "L06 has no pace 'slow'; it has: full, short, smoke" in refused(labs("run", "L06", "--pace", "slow"), 2)
    assert "local, rehearsal, kubernetes, aks" in refused(labs("run", "L06", "--target", "moon"), 2)


def test_settings_of_the_environment_are_checked_too(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_PACE", "slow")
    assert "L06 has no pace 'slow'" in refused(labs("run", "L06"), 2)
    monkeypatch.setenv("LABS_PACE", "smoke")
    monkeypatch.setenv("LABS_VARIANT", "big")
    assert "L06 has no variant 'big'" in refused(labs("run", "L06"), 2)
    monkeypatch.setenv("LABS_TURNS", "0")
    assert "LABS_TURNS='0' is no number from 1 to 100" in refused(labs("run", "L06"), 2)
    monkeypatch.setenv("LABS_TURNS", "90")
    too_many = refused(labs("run", "L11", "--pace", "smoke", "--variant", "gmu-0.70,gmu-0.85,gmu-0.95"), 2)
    assert "90 turns of 3 variants are 270 visits, and a run has 200 at most (--turns, --variant)" in too_many


def test_a_target_that_can_t_serve_the_lab_is_refused_with_the_reason_and_those_that_can(labs: Labs) -> None:
    spec = load_catalog().spec("L07")
    message = refused(labs("run", "L07"), 1)
    assert f"L07 can't run on target local. {spec.needs}" in message
    assert f"It runs on: {', '.join(spec.targets)}" in message


def test_every_target_has_resources() -> None:
    from lab_pipelines.build import RESOURCES

    assert set(RESOURCES) == set(TARGETS)


def test_a_missing_instance_is_refused_with_the_command_that_makes_one(labs: Labs) -> None:
    assert "make setup" in refused(labs("run", "L06", "--pace", "smoke"), 1)


# Dagster's lines


def test_a_log_line_is_taken_apart() -> None:
    head = f"2026-11-23 22:21:16 +0000 - dagster - INFO - __ASSET_JOB - {RUN_ID} - load_run - "
    assert read_record(f"{head}L06 · stage 1/2 - held") == Record(
        "22:21:16", "INFO", RUN_ID, "load_run", "L06 · stage 1/2 - held"
    )
    head = f"2026-11-23 21:43:58 +0000 - dagster - ERROR - __ASSET_JOB - {RUN_ID} - 30250 - deployed_stack - "
    assert read_record(f"{head}STEP_FAILURE - x") == Record(
        "21:43:58", "ERROR", RUN_ID, "deployed_stack", "STEP_FAILURE - x"
    )


@pytest.mark.parametrize("line", ["", "Stack Trace:", '  File "/x.py", line 9, in deployed_stack', "KeyError: 'x'"])
def test_other_lines_are_no_records(line: str) -> None:
    assert read_record(line) is None


# Runs of a real Dagster


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with main_command.prepared(tmp_path_factory.mktemp("place")) as place:
        yield place


def run_of(place: Place, partition: str) -> tuple[Ended, list[Record], Path]:
    """One run of the small code location: how it ended, what it showed, and its log."""
    log, shown = place.folder / f"{partition}.log", list[Record]()
    ended = supervise(
        materialize_command(partition, failing_definitions.__name__),
        environ=place.environ("smoke"),
        log=log,
        show=shown.append,
        on_interrupt=lambda count: None,
    )
    return ended, shown, log


@pytest.mark.parametrize(
    ("partition", "reason"),
    [
        ("mistake", "mistake has no pace 'slow'; it has: full (set LABS_PACE)"),
        ("ours", "row 3 is wrong; correct it"),
        ("bug", "deployed_stack: KeyError: 'surprise'"),
        ("check", "deployed_stack: rows_are_sound: 2 of 3 are bad"),
    ],
)
def test_a_failed_run_tells_its_reason_and_nothing_of_the_stack_trace(
    place: Place, partition: str, reason: str
) -> None:
    ended, shown, log = run_of(place, partition)
    assert (ended.code, ended.interrupted) == (1, False)
    assert reasons(ended, home=place.home, log=log) == [reason]
    assert [record.message for record in shown] == [
        f"{partition} · the stack is up",
        f"{partition} · something to know",
    ]
    assert "Stack Trace:" in log.read_text(encoding="utf-8")


def test_a_run_that_ends_well_shows_its_progress_with_its_step(place: Place) -> None:
    ended, shown, _ = run_of(place, "fine")
    assert ended.code == 0
    assert {record.run_id for record in shown} == {ended.run_id}
    assert [(record.level, record.step) for record in shown] == [
        ("INFO", "deployed_stack"),
        ("WARNING", "deployed_stack"),
    ]


def test_a_run_goes_on_when_nobody_can_be_shown_its_progress(place: Place) -> None:
    def gone(record: Record) -> None:
        raise BrokenPipeError

    ended = supervise(
        materialize_command("fine", failing_definitions.__name__),
        environ=place.environ("smoke"),
        log=place.folder / "gone.log",
        show=gone,
        on_interrupt=lambda count: None,
    )
    assert (ended.code, ended.interrupted) == (0, False)


def test_a_command_that_ends_before_a_run_began_tells_the_last_error_of_ours(place: Place) -> None:
    log = place.folder / "broken.log"
    ended = supervise(
        [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*", "-m", "lab_pipelines.definitions"],
        environ={**place.environ("smoke"), "LABS_TARGET": "moon"},
        log=log,
        show=lambda record: None,
        on_interrupt=lambda count: None,
    )
    assert ended.code != 0
    assert ended.run_id is None
    [reason] = reasons(ended, home=place.home, log=log)
    assert reason.startswith("LABS_TARGET='moon' is not a target")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupt_is_passed_on_once_and_the_release_ends_in_peace(
    place: Place, tmp_path: Path, number: signal.Signals
) -> None:
    released = tmp_path / "released"
    code = f"""
import sys
from pathlib import Path
from lab_pipelines.cli.launch import materialize_command, supervise
ended = supervise(
    materialize_command("long", "{failing_definitions.__name__}"),
    environ=dict(__import__("os").environ),
    log=Path(sys.argv[1]),
    show=lambda record: print(record.message, flush=True),
    on_interrupt=lambda count: print("interrupt", count, flush=True),
)
print(ended.interrupted, ended.code != 0)
"""
    environ = {**place.environ("smoke"), failing_definitions.RELEASED: str(released)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        env=environ,
        cwd=REPO_ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line == "long · waits to be interrupted\n" for line in process.stdout)
        process.send_signal(number)
        assert process.stdout.readline() == "interrupt 1\n"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
    assert rest in (["interrupt 2", "True True"], ["True True"])  # the second may come when all is over
    assert released.read_text(encoding="utf-8") == "released"


def test_an_interrupt_that_comes_amid_a_line_is_told_after_it(tmp_path: Path) -> None:
    line = f"2026-03-02 09:00:00 +0000 - dagster - INFO - labs - {RUN_ID} - load_run - waits"
    child = f"""
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: sys.exit(3))
print("{line}", flush=True)
for _ in range(600):
    time.sleep(0.05)  # a bounded wait for the signal, which may come before it would be asked for
"""
    code = """
import io, os, signal, sys
from pathlib import Path
from lab_pipelines.cli.launch import supervise

class Terminal(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        if b"waits" in bytes(data):
            os.kill(os.getpid(), signal.SIGINT)
        return os.write(1, data)

sys.stdout = io.TextIOWrapper(io.BufferedWriter(Terminal()))
ended = supervise(
    [sys.executable, "-c", sys.argv[2]],
    environ=dict(os.environ),
    log=Path(sys.argv[1]),
    show=lambda record: print(record.message, flush=True),
    on_interrupt=lambda count: print("interrupt", count, flush=True),
)
print(ended.interrupted, ended.code, flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "log"), child]
    done = subprocess.run(command, cwd=REPO_ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["waits", "interrupt 1", "True 3"], done.stderr


# labs status


def test_without_any_result_status_says_what_to_do_first(labs: Labs) -> None:
    shown = labs("status").stdout
    assert "nothing has been run yet. First: make demo, or labs run L06" in shown
    assert "no stack is up on this machine" in shown
    assert "of 78 labs are complete, 0 have results" in shown


def test_each_lab_s_newest_run_is_shown_with_its_provenance_and_verdicts(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, lab_run(users=(1, 4)))
    newer = {"run_id": "newer", "session_id": "session-2", "lab": "L07", "target": "aks", "provenance": "measured"}
    kinds = {"engine": "none", "time_scale": 1.0, "pace": "full"}
    publish_run(
        warehouse,
        {
            "stack_sessions": [session_row(**newer, **kinds)],
            "events": [event_row(**newer, **kinds, kind="apply", name="quota", outcome="failed")],
            "findings": [finding_row(**newer, **kinds, verdict="refuted")],
        },
    )
    warehouse.rebuild()
    result = labs("status")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line[:1] == "L"}
    for part in ("local", "modelled", "short", "2026-03-02 09:00", "finished", "1 confirmed"):
        assert part in lines["L06"]
    for part in ("aks", "measured", "ended early, 1 steps failed", "1 refuted"):
        assert part in lines["L07"]
    shown = json.loads(labs("status", "--json").stdout)
    assert (shown["labs"], shown["with_results"]) == (78, 1)
    assert [run["run_id"] for run in shown["newest_runs"]][1] == "newer"


def test_of_two_runs_the_newer_one_speaks(labs: Labs, warehouse: Warehouse) -> None:
    publish_run(warehouse, {"stack_sessions": [session_row()]})
    later = session_row()["requested_at"] + timedelta(hours=1)
    opened = {"state": "open", "released_at": None, "held_s": None}
    publish_run(
        warehouse,
        {"stack_sessions": [session_row(run_id="b", session_id="b", requested_at=later, **opened)]},
    )
    warehouse.rebuild()
    [run] = json.loads(labs("status", "--json").stdout)["newest_runs"]
    assert (run["run_id"], run["released"], run["finished"]) == ("b", False, False)
    assert "not released" in labs("status").stdout


def test_a_read_model_of_another_version_is_one_message_with_its_remedy(labs: Labs, warehouse: Warehouse) -> None:
    import duckdb

    Path(warehouse.data_dir).mkdir(parents=True)
    with duckdb.connect(str(warehouse.snapshot_path)) as connection:
        connection.execute("create table stack_sessions (lab varchar)")
    message = refused(labs("status"), 1)
    assert "labs report builds it anew" in message
    assert labs("report").exit_code == 0
    assert labs("status").exit_code == 0


def test_a_live_lease_is_shown_as_a_stack(labs: Labs, warehouse: Warehouse) -> None:
    book = LeaseBook(Path(warehouse.data_dir) / "state")
    with book.locked():
        lease = book.take("L06", RUN_ID).lease
    shown = labs("status").stdout
    assert f"L06: stack coming up; lease until {lease.expires_at:%Y-%m-%d %H:%M} UTC (run {RUN_ID})" in shown
    [stack] = json.loads(labs("status", "--json").stdout)["stacks"]
    assert (stack["lab"], stack["run_id"]) == ("L06", RUN_ID)


def test_a_stack_that_was_left_behind_is_told_from_one_that_works(tmp_path: Path) -> None:
    book = LeaseBook(tmp_path)
    with book.locked():
        entry = book.take("L06", RUN_ID)
        book.take("L05", RUN_ID)
        dead = entry.lease.model_copy(update={"owner": f"{os.getpid()}:0.00"})  # a former process with our pid
        book.write(entry.model_copy(update={"lease": dead}))
    assert [(s.lab, s.state) for s in stacks(tmp_path)] == [
        ("L05", "coming up"),
        ("L06", "its run is dead; the next run's reaper removes it"),
    ]
    later = datetime.now(UTC) + timedelta(days=1)
    assert all(stack.state.startswith("expired") for stack in stacks(tmp_path, now=later))
