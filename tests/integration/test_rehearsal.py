"""L06 in a rehearsal, as a whole: the same assets, virtual time, a real Prometheus, and what a local run measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.calendar import load_calendar
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.deployment import REPO_ROOT, Deployment
from resources import processes
from resources.cluster_rehearsal import RehearsalCluster
from resources.contract import contract
from resources.warehouse import Warehouse
from tests.support.rows.runs import NOT_BY_RUNS

LAB_ASSETS = ("deployed_stack", "load_run", "metrics_snapshot", "cost_attribution", "finops_sheet")
BASELINE = REPO_ROOT / "results" / "baselines" / "L06" / "local" / "0001.json"
PER_RUN = ("recorded_at", "run_id", "session_id")


def rehearse(data_dir: Path, lab: str = "L06", *, pace: str | None = None) -> Warehouse:
    """Materialize a lab's assets on the rehearsal target, and give its warehouse."""
    defs = build_defs(target="rehearsal", deployment=Deployment(data_dir=data_dir, pace=pace))
    job = defs.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(partition_key=lab, asset_selection=[AssetKey(name) for name in LAB_ASSETS])
    assert result.success
    return Warehouse(data_dir=str(data_dir))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A rehearsal at its default pace."""
    yield rehearse(tmp_path_factory.mktemp("full"))


def test_every_table_has_rows_and_every_row_says_that_it_is_modelled(full: Warehouse) -> None:
    # The lab collects no logs, and draws no reclaims.
    for table in contract(Path(full.schema_dir)).keys() - {"log_lines", "capacity_spells"} - NOT_BY_RUNS:
        said = full.query(f"SELECT DISTINCT lab, target, engine, provenance, pace, time_scale FROM {table}")
        assert said == [
            {
                "lab": "L06",
                "target": "rehearsal",
                "engine": "modelled-vllm",
                "provenance": "modelled",
                "pace": "full",
                "time_scale": 1.0,
            }
        ], table


def test_a_rehearsal_begins_on_the_lab_s_first_morning_and_is_recorded_now(full: Warehouse) -> None:
    [session] = full.query("SELECT * FROM stack_sessions WHERE state = 'closed'")
    week = next(week for week in load_calendar().weeks if week.number == load_catalog().spec("L06").week)
    assert session["requested_at"].astimezone(UTC) == datetime(
        week.starts.year, week.starts.month, week.starts.day, 9, tzinfo=UTC
    )
    assert abs(datetime.now(UTC) - session["recorded_at"]) < timedelta(hours=1)
    took_s = (session["released_at"] - session["requested_at"]).total_seconds()
    assert session["cold_start_s"] + session["held_s"] == pytest.approx(took_s, abs=1.0)
    assert session["model_range"] is not None


def test_prometheus_answers_every_measure_of_every_stage(full: Warehouse) -> None:
    spec = load_catalog().spec("L06")
    found = full.query("SELECT * FROM metric_summaries")
    assert {row["measure"] for row in found} == {measure.name for measure in spec.measures}
    assert {row["users"] for row in found} == {1, 4, 8, 16, 32}
    assert [row["gap_reason"] for row in found if row["status"] == "gap"] == []


def test_client_and_server_saw_the_same_and_tokens_are_exact(full: Warehouse) -> None:
    for total in full.query("SELECT * FROM counter_totals"):
        assert total["server_total"] == pytest.approx(total["client_total"], rel=0.005, abs=total["client_unknown"])
    [tokens] = full.query(
        "SELECT min(input_tokens) AS least_in, max(input_tokens) AS most_in, min(output_tokens) AS least_out, "
        "max(output_tokens) AS most_out, min(length(event_offsets_s)) AS events FROM requests WHERE outcome = 'ok'"
    )
    assert list(tokens.values()) == [512, 512, 256, 256, 256]


def test_the_findings_are_judged_on_modelled_rows(full: Warehouse) -> None:
    found = full.query("SELECT finding, verdict FROM findings")
    assert {row["finding"] for row in found} == {finding.id for finding in load_catalog().spec("L06").findings}
    assert {row["verdict"] for row in found} <= {"confirmed", "refuted", "inconclusive"}


def test_the_cold_start_is_a_timeline_in_virtual_time_and_the_money_adds_up(full: Warehouse) -> None:
    phases = full.query("SELECT * FROM events WHERE kind = 'cold_start' ORDER BY started_at")
    assert [phase["name"] for phase in phases] == [
        *("node_ready", "driver_ready", "image_pulled", "model_loaded", "engine_ready", "first_token")
    ]
    for before, after in pairwise(phases):
        assert before["ended_at"] == after["started_at"]
    [sums] = full.query(
        "SELECT sum(ListCost) AS parts, (SELECT usd FROM finops_sheet WHERE stage IS NULL) AS total FROM cost_records"
    )
    assert sums["parts"] == sums["total"] > 0


def test_nothing_is_left_running_and_no_lease_is_held(full: Warehouse) -> None:
    state = Path(full.data_dir) / "state" / "rehearsal" / processes.owner_of()
    assert processes.find_marked(state) == {}
    assert list((state / "leases").glob("*.json")) == []


def test_it_agrees_with_what_the_local_server_did(tmp_path: Path) -> None:
    # The pinned run went through HTTP, the load generator and the wall clock, at the same pace.
    pinned = {stage["users"]: stage for stage in json.loads(BASELINE.read_text())["variants"]["baseline"]["stages"]}
    warehouse = rehearse(tmp_path, pace="short")
    rehearsed = warehouse.query(
        "SELECT s.users, any_value(s.output_tokens / s.duration_s) AS output_tokens_per_s, median(r.ttft_s) AS "
        "ttft_p50_s FROM load_stages s JOIN requests r USING (stage) WHERE r.valid GROUP BY s.users ORDER BY s.users"
    )
    assert [row["users"] for row in rehearsed] == sorted(pinned)
    for row in rehearsed:
        for name in ("ttft_p50_s", "output_tokens_per_s"):
            assert row[name] == pytest.approx(pinned[row["users"]][name], rel=0.05), (row["users"], name)


def test_two_rehearsals_with_one_seed_leave_the_same_rows(full: Warehouse, tmp_path: Path) -> None:
    again = rehearse(tmp_path)
    for table in contract(Path(full.schema_dir)):
        first, second = (comparable(warehouse, table) for warehouse in (full, again))
        assert first == second, table


def comparable(warehouse: Warehouse, table: str) -> list[dict[str, Any]]:
    rows = [
        {name: value for name, value in row.items() if name not in PER_RUN}
        for row in warehouse.query(f"SELECT * FROM {table} ORDER BY ALL")
    ]
    return sorted(rows, key=repr)


def test_another_seed_draws_another_cold_start(full: Warehouse, tmp_path: Path) -> None:
    [one] = full.query("SELECT cold_start_s FROM stack_sessions WHERE state = 'closed'")
    data_dir = str(tmp_path)
    defs = build_defs(
        target="rehearsal",
        deployment=Deployment(data_dir=tmp_path, pace="smoke"),
        resource_overrides={"cluster": RehearsalCluster(data_dir=data_dir, seed=79)},
    )
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key="L06", asset_selection=[AssetKey(name) for name in LAB_ASSETS]
    )
    [other] = Warehouse(data_dir=data_dir).query("SELECT cold_start_s FROM stack_sessions WHERE state = 'closed'")
    assert other["cold_start_s"] != one["cold_start_s"]
