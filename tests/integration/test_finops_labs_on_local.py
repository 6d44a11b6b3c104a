"""L71 and L72 on this machine: what a request cost, and a stack that is left alone, until a real Alertmanager tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab_pipelines.build import build_defs
from lab_pipelines.deployment import Deployment
from resources.warehouse import Warehouse
from tests.support.rehearsals import LAB_ASSETS


def run(lab: str, data_dir: Path) -> Warehouse:
    defs = build_defs(target="local", deployment=Deployment(data_dir=data_dir, pace="smoke"))
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(partition_key=lab, asset_selection=LAB_ASSETS).success
    return Warehouse(data_dir=str(data_dir))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """What one run of L72 has left."""
    return run("L72", tmp_path_factory.mktemp("L72"))


def test_a_gpu_that_is_left_alone_is_told_of_after_its_fifteen_minutes_and_a_pause_is_not(warehouse: Warehouse) -> None:
    [event] = warehouse.query("SELECT * FROM events WHERE kind = 'fire_alert'")
    assert event["outcome"] == "ok"
    detail = json.loads(event["detail"])
    assert 0 < detail["pending_at_s"] < detail["firing_at_s"] <= detail["notified_at_s"]
    # Its `for`, in stack time; an evaluation more or less, as far apart as the scrapes are.
    assert detail["firing_at_s"] - detail["pending_at_s"] >= 899
    [pause] = warehouse.query("SELECT duration_s, outcome FROM events WHERE name = 'pause'")
    assert pause["outcome"] == "ok"
    assert pause["duration_s"] >= 300
    verdicts = {row["finding"]: row["verdict"] for row in warehouse.query("SELECT finding, verdict FROM findings")}
    assert verdicts["somebody-is-told"] == "confirmed"
    assert verdicts["the-condition-holds"] == "inconclusive"


def test_the_spell_is_idle_time_that_was_paid_for(warehouse: Warehouse) -> None:
    idle = {
        row["kind"]: row
        for row in warehouse.query(
            "SELECT kind, sum(duration_s) AS s, sum(usd) AS usd FROM idle_intervals GROUP BY kind"
        )
    }
    assert idle["after_load"]["s"] >= 1200
    assert idle["between_loads"]["s"] >= 300
    assert idle["after_load"]["usd"] == pytest.approx(idle["after_load"]["s"] / 3600 * 0.526)


def test_l71_prices_its_requests_on_the_one_gpu_that_this_machine_models(tmp_path: Path) -> None:
    warehouse = run("L71", tmp_path)
    found = warehouse.query(
        "SELECT m.stage, m.measure, m.value, s.usd_per_request, s.usd_per_1k_useful_output_tokens "
        "FROM metric_summaries AS m JOIN sheet_current AS s USING (session_id, step, stage) "
        "WHERE m.measure LIKE 'usd_per_%' ORDER BY ALL"
    )
    assert [(row["stage"], row["measure"]) for row in found] == [
        (stage, measure) for stage in (0, 1) for measure in ("usd_per_1k_useful_output_tokens", "usd_per_request")
    ]
    assert all(row["value"] == row[row["measure"]] for row in found)
    reasons = {row["finding"]: row["reason"] for row in warehouse.query("SELECT finding, reason FROM findings")}
    assert reasons["one-user-wants-a-t4"] == "variant a100 was not walked in this run"
    [session] = warehouse.query("SELECT * FROM namespace_cost")
    assert (session["namespace"], session["cost_center"], session["phase"]) == ("lab-71", "llm-serving-labs", "7")
    assert session["usd_billed"] is None
