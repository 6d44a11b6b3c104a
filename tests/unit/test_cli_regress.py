"""`labs regress` and `labs drift` on a warehouse: which runs are compared, what is said, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lab_pipelines import baseline
from lab_pipelines.baseline import pin
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.cli.app import app
from lab_pipelines.cli.drift import sparkline
from lab_pipelines.regression_runs import runs_of, with_spreads
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.rows.decisions import run_mark_row
from tests.support.rows.load import over_budget
from tests.support.rows.runs import get_run, lab_run
from tests.support.warehouses import publish_run, warehouse_in

SPEC = load_catalog().spec("L06")
USERS = [users for users in SPEC.load_steps[0].stage_users if users is not None]
REQUESTS = 96
"""Of each stage: enough for an interval of a p95."""


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setattr(baseline, "BASELINES_DIR", tmp_path / "baselines")
    warehouse = warehouse_in(tmp_path)
    own_environment(monkeypatch, warehouse.data_dir)
    return warehouse


def publish(
    warehouse: Warehouse,
    number: int,
    *,
    slower: float = 1.0,
    users: Sequence[int] = USERS,
    overloaded: bool = False,
    **columns: Any,
) -> str:
    """Run `number` in the order of time; its requests vary by 3 %, and it as a whole by 1 %. `overloaded`: its client
    was over its error budget in the last stage."""
    rng, name = np.random.default_rng(number), f"run-{number}"
    tables = lab_run(
        users=users,
        requests_per_stage=REQUESTS,
        slower=slower * float(np.exp(rng.normal(0, 0.01))),
        run_id=name,
        session_id=name,
        **columns,
    )
    for row in tables["requests"]:
        for latency in ("ttft_s", "tpot_s", "e2e_s"):
            if row[latency]:
                row[latency] *= float(np.exp(rng.normal(0, 0.03)))
    if overloaded:
        over_budget(tables, len(users) - 1)
    for rows in tables.values():
        for row in rows:
            row["recorded_at"] += timedelta(days=number)
    for row in tables["stack_sessions"]:
        row["spec_digest"] = SPEC.digest
    publish_run(warehouse, tables)
    return name


def labs(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def shown(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = labs("regress", "L06", *arguments, "--json")
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


def pinned(warehouse: Warehouse, run_id: str) -> None:
    pin(warehouse, SPEC, target="local", run_id=run_id, directory=baseline.BASELINES_DIR)


def test_a_run_like_the_ones_before_passes_and_a_slower_one_fails_by_name(warehouse: Warehouse) -> None:
    for number in range(7):
        publish(warehouse, number)
    pinned(warehouse, "run-0")
    code, told = shown()
    assert (code, told["run_id"]) == (0, "run-6")
    assert told["outcome"] in ("no regression", "inconclusive")
    assert {row["against"] for row in told["comparisons"]} == {"baseline", "history"}
    publish(warehouse, 7, slower=1.2)
    result = labs("regress", "L06")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("worse: throughput of baseline, all stages, against history")]
    assert "the whole interval is beyond 5 %; spread of 7 earlier runs" in line
    assert "labs regress L06 --against previous" in result.stdout
    assert "labs baseline pin L06 --again" in result.stdout
    assert any(line.startswith("regression: of ") for line in lines)
    # A stage's number carries its interval, and n.
    _, told = shown("--quantity", "ttft_p95")
    row = next(row for row in told["comparisons"] if row["users"] == 32 and row["against"] == "baseline")
    assert row["quantity"] == "ttft_p95"
    assert row["verdict"] == "worse"
    assert 0.05 < row["low"] < row["change"] < row["high"]
    assert row["n"] == f"{REQUESTS} against {REQUESTS} requests"


def test_two_runs_of_one_job_are_compared_without_any_past(warehouse: Warehouse) -> None:
    former = publish(warehouse, 0)
    assert "none before it" in refused(labs("regress", "L06", "--against", "previous"), 1)
    same, slower = publish(warehouse, 1), publish(warehouse, 2, slower=1.15)
    assert shown("--against", "previous")[1] == shown("--runs", same, slower)[1]
    assert shown("--runs", former, same)[0] == 0
    code, told = shown("--runs", former, slower)
    assert (code, told["outcome"], told["run_id"]) == (1, "regression", slower)
    said = labs("regress", "L06", "--runs", former, slower).stdout
    assert "labs baseline pin L06 --again --target local" in said
    assert "in one job" not in said.splitlines()[-1], "that is what was just done"
    assert {row["against"] for row in told["comparisons"]} == {"former"}
    assert "such run on local; its newest: run-0, run-1, run-2" in refused(
        labs("regress", "L06", "--runs", "x", same), 2
    )


def test_what_is_missing_fails(warehouse: Warehouse) -> None:
    for number in range(6):
        publish(warehouse, number)
    publish(warehouse, 6, users=USERS[:-1])
    result = labs("regress", "L06")
    assert result.exit_code == 1
    assert "missing: throughput of baseline, ramp, 32 users, against history: the run before has it" in result.stdout
    assert "labs show-run L06" in result.stdout


def test_a_stage_whose_client_was_over_its_error_budget_has_no_number_to_compare(warehouse: Warehouse) -> None:
    publish(warehouse, 0)
    publish(warehouse, 1, overloaded=True)
    code, told = shown("--runs", "run-0", "run-1", "--quantity", "throughput")
    assert (code, told["outcome"]) == (1, "missing")
    assert {row["users"] for row in told["comparisons"] if row["verdict"] == "missing"} == {USERS[-1]}
    assert USERS[-1] not in {row["users"] for row in told["comparisons"] if row["verdict"] != "missing"}
    # Nor does a lower bound stand as the reference of a later run.
    publish(warehouse, 2)
    _, told = shown("--runs", "run-1", "run-2", "--quantity", "throughput")
    assert USERS[-1] not in {row["users"] for row in told["comparisons"]}


def test_where_nothing_can_be_compared_it_fails_and_says_why(warehouse: Warehouse) -> None:
    assert "L06 has no run on target local yet" in refused(labs("regress", "L06"), 1)
    publish(warehouse, 0)
    result = labs("regress", "L06")
    assert result.exit_code == 1
    assert "baseline: none is pinned: labs baseline pin L06 --target local" in result.stdout
    assert "nothing is known to be fine" in result.stdout
    assert "labs baseline pin L06 --target local" in result.stdout.splitlines()[-1]
    assert "labs regress L06 --against previous --target local" in result.stdout.splitlines()[-1]
    pinned(warehouse, "run-0")
    assert "baseline 0001.json" in labs("regress", "L06", "--against", "baseline").stdout
    assert "it is this run" in labs("regress", "L06", "--against", "baseline").stdout


def test_runs_of_another_kind_are_no_history_and_no_match_for_the_baseline(warehouse: Warehouse) -> None:
    for number in range(6):
        publish(warehouse, number)
    pinned(warehouse, "run-0")
    publish(warehouse, 6, engine="external", provenance="measured", time_scale=1.0)
    code, told = shown()
    assert (code, told["outcome"], told["comparisons"]) == (1, "nothing compared", [])
    assert any("measured against modelled numbers" in note for note in told["notes"])
    assert "history: earlier runs of the same engine, pace and time scale: 0" in told["notes"]
    message = refused(labs("regress", "L06", "--runs", "run-5", "run-6"), 1)
    assert "can't be compared: measured against modelled numbers" in message


def test_a_marked_run_is_passed_over(warehouse: Warehouse) -> None:
    publish(warehouse, 0)
    cut = publish(warehouse, 1)
    mark = run_mark_row(run_id=cut)
    warehouse.publish("run_marks", [mark], target="local", lab="L06", run_id=cut, part="cut")
    assert shown()[1]["run_id"] == "run-0"
    assert mark["reason"] in refused(labs("regress", "L06", "--runs", "run-0", cut), 1)


def test_a_baseline_of_another_machine_is_allowed_for(warehouse: Warehouse, tmp_path: Path) -> None:
    elsewhere = warehouse_in(tmp_path / "elsewhere")
    publish(elsewhere, 0)
    pinned(elsewhere, "run-0")
    publish(warehouse, 1, slower=1.15)
    code, told = shown()
    assert (code, told["outcome"]) == (0, "inconclusive")
    assert "may be of another machine" in told["comparisons"][0]["reason"]
    assert shown("--allowance", "0.01")[1]["outcome"] == "regression"


def test_what_changed_since_the_baseline_is_said(warehouse: Warehouse) -> None:
    publish(warehouse, 0)
    pinned(warehouse, "run-0")
    tables = lab_run(users=USERS, run_id="other", session_id="other")
    for rows in tables.values():
        for row in rows:
            row["recorded_at"] += timedelta(days=1)
    publish_run(warehouse, tables)
    assert "since the baseline changed: spec_digest" in shown()[1]["notes"]


def test_a_wrong_call_is_told_in_a_line(warehouse: Warehouse) -> None:
    assert "--against x: expected baseline, history or previous" in refused(labs("regress", "L06", "--against", "x"), 2)
    assert "--quantity speed: expected one of throughput" in refused(labs("regress", "L06", "--quantity", "speed"), 2)
    both = labs("regress", "L06", "--runs", "a", "b", "--against", "history")
    assert "--runs and --against exclude each other" in refused(both, 2)
    assert "did you mean L06" in refused(labs("regress", "l6"), 2)
    # 5 for 5 % would be a check that never fails.
    assert labs("regress", "L06", "--threshold", "5").exit_code == 2
    assert labs("regress", "L06", "--allowance", "20").exit_code == 2


def test_plain_gets_have_their_latency(warehouse: Warehouse) -> None:
    for number in range(6):
        tables = get_run(run_id=f"get-{number}", session_id=f"get-{number}")
        for rows in tables.values():
            for row in rows:
                row["recorded_at"] += timedelta(days=number)
                if row.get("e2e_s"):
                    row["e2e_s"] *= 1 + 0.01 * number
        publish_run(warehouse, tables)
    result = labs("regress", "L01", "--json")
    assert result.exit_code == 0, result.stdout
    told = json.loads(result.stdout)
    assert {row["quantity"] for row in told["comparisons"]} == {"e2e_p50", "e2e_p95"}
    assert {row["load"] for row in told["comparisons"]} == {"2/s", "8/s", "all stages"}


def test_several_trials_of_a_variant_are_one_number(warehouse: Warehouse) -> None:
    for trial in (1, 2):
        tables = lab_run(users=(4,), run_id="r", session_id=f"s{trial}", trial=trial, slower=float(trial))
        for table, rows in tables.items():
            warehouse.publish(table, rows, target="local", lab="L06", run_id="r", part=f"t{trial}")
    (run,) = runs_of(warehouse, "L06", "local")
    ttft = next(number for cell, number in run.numbers.items() if cell.quantity.name == "ttft_p50")
    assert ttft.value == pytest.approx(0.38 * 2**0.5)
    assert ttft.n == 2 * 24


def test_a_pinned_number_is_as_sure_as_the_one_turn_that_it_is_of(warehouse: Warehouse) -> None:
    rng = np.random.default_rng(1)
    for trial in (1, 2):
        tables = lab_run(
            users=(4,), requests_per_stage=REQUESTS, run_id="r", session_id=f"s{trial}", trial=trial, lab="L06"
        )
        for row in tables["requests"]:
            row["ttft_s"] *= float(np.exp(rng.normal(0, {1: 0.15, 2: 0.015}[trial])))
        for table, rows in tables.items():
            warehouse.publish(table, rows, target="local", lab="L06", run_id="r", part=f"t{trial}")
    (run,) = runs_of(warehouse, "L06", "local")
    both, last = (
        next(
            number.spread
            for cell, number in with_spreads(warehouse, run, "L06", "local", pinned=pinned).numbers.items()
            if cell.quantity.name == "ttft_p50"
        )
        for pinned in (False, True)
    )
    # 1.25 * 1.5 % / sqrt(96) in the last turn; with the first one, half the root of the sum of the squares.
    assert last == pytest.approx(0.0019, rel=0.5)
    assert both == pytest.approx(0.0096, rel=0.5)


def test_a_number_knows_its_spread_by_its_own_requests(warehouse: Warehouse) -> None:
    publish(warehouse, 0)
    (run,) = runs_of(warehouse, "L06", "local")
    assert {number.spread for number in run.numbers.values()} == {None}
    spreads = {
        (cell.quantity.name, cell.users): number.spread
        for cell, number in with_spreads(warehouse, run, "L06", "local").numbers.items()
    }
    # Of 96 values that vary by 3 % a median's standard error is 1.25 * 3 % / sqrt(96).
    assert spreads["ttft_p50", 8] == pytest.approx(0.0038, rel=0.5)
    assert spreads["usd_per_1k", 8] == spreads["throughput", 8]


def test_drift_tells_steps_outliers_and_noise_apart(warehouse: Warehouse) -> None:
    for number in range(13):
        publish(warehouse, number, users=(1, 4), slower=1.5 if number == 3 else 1.2 if number >= 7 else 1.0)
    result = labs("drift", "--quantity", "ttft_p50")
    assert result.exit_code == 0, result.output
    assert "modelled · target local · modelled-vllm · pace short at 5 x · 13 runs" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("baseline, all stages"))
    assert "1 step in 13 runs: +" in line
    assert "from run 8 on; 1 of 13 runs lie apart" in line
    assert "│" in line
    assert "in run run-3 of 2026-03-05" in result.stdout
    told = json.loads(labs("drift", "--quantity", "ttft_p50", "--json").stdout)
    whole = next(row for row in told if row["step"] == "all stages")
    assert (whole["state"], whole["outliers"], len(whole["runs"])) == ("stepped", [3], 13)
    assert [level["start"] for level in whole["levels"]] == [0, 7]
    assert whole["provenance"] == "modelled"


def test_too_few_runs_for_drift_is_an_answer(warehouse: Warehouse) -> None:
    assert "L06 has no run on target local yet" in refused(labs("drift"), 1)
    publish(warehouse, 0, users=(1, 4))
    result = labs("drift")
    assert result.exit_code == 0
    assert "too few runs: 1; steps are told from outliers from 10 on" in result.stdout


def test_the_picture_is_as_flat_as_the_numbers() -> None:
    assert sparkline([1.0, 1.0001, 1.0], []) == "▄▄▄"
    assert sparkline([1.0, 2.0, 3.0, 3.0], [2]) == "▁▅│██"
    assert len(sparkline([float(n) for n in range(100)], [])) == 40
