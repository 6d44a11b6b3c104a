"""The FinOps labs in rehearsal: what money bought, what idleness cost, and what a mix of Spot nodes serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.deployment import Deployment
from resources.warehouse import Warehouse
from tests.support.rehearsals import rehearsed


def findings(warehouse: Warehouse, lab: str) -> dict[str, dict[str, Any]]:
    return {row["finding"]: row for row in warehouse.query("SELECT * FROM findings WHERE lab = ?", [lab])}


def of_run(warehouse: Warehouse, lab: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Measures of whole sessions and of the run, by variant and name."""
    found = warehouse.query("SELECT * FROM metric_summaries WHERE lab = ? AND stage IS NULL", [lab])
    return {(row["variant"], row["measure"]): row for row in found}


def sheet_again(lab: str, data_dir: Path) -> None:
    job = build_defs(
        target="rehearsal", deployment=Deployment(data_dir=data_dir)
    ).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(partition_key=lab, asset_selection=[AssetKey("finops_sheet")]).success


def test_l71_prices_what_was_useful_after_its_own_cost_is_known(tmp_path: Path) -> None:
    warehouse = rehearsed("L71", tmp_path)
    spec = load_catalog().spec("L71")
    asked = warehouse.query("SELECT DISTINCT measure FROM metric_summaries")
    assert {row["measure"] for row in asked} == {measure.name for measure in spec.measures}
    judged = findings(warehouse, "L71")
    assert {name: row["verdict"] for name, row in judged.items()} == {
        "one-user-wants-a-t4": "confirmed",
        "sixteen-still-do": "confirmed",
        "a-queue-serves-nobody": "confirmed",
        "more-waiting-than-serving": "confirmed",  # two cold starts for a quarter of an hour of load
        "the-bill-agrees": "inconclusive",  # nobody sends a bill for a rehearsal
        "every-hour-has-its-cost": "confirmed",
    }
    measured = of_run(warehouse, "L71")
    assert measured["all", "labs_priced"]["value"] == 1.0
    assert "no session on target rehearsal has both" in measured["all", "bill_difference"]["gap_reason"]
    # An idle hour costs what any hour does; one in use pays for the cold start too.
    for variant, usd in (("t4", 0.526), ("a100", 3.673)):
        assert measured[variant, "usd_per_idle_gpu_hour"]["value"] == pytest.approx(usd)
        efficiency = measured[variant, "cost_efficiency"]["value"]
        assert measured[variant, "usd_per_gpu_hour_in_use"]["value"] == pytest.approx(usd / efficiency, rel=1e-4)
    tokens = warehouse.query(
        "SELECT m.value AS useful, s.usd_per_1k_output_tokens AS any_kind FROM metric_summaries AS m "
        "JOIN finops_sheet AS s USING (session_id, step, stage) "
        "WHERE m.measure = 'usd_per_1k_useful_output_tokens' AND m.value IS NOT NULL"
    )
    assert len(tokens) == 9  # of ten stages one had no useful token
    assert all(row["useful"] >= row["any_kind"] * (1 - 1e-9) for row in tokens)
    namespace = warehouse.query("SELECT * FROM namespace_cost ORDER BY variant DESC")
    assert [row["phase"] for row in namespace] == ["7", "7"]
    assert [row["cost_center"] for row in namespace] == ["llm-serving-labs"] * 2
    assert all(row["gpu_hours"] == row["node_hours"] > 0 for row in namespace)
    # When other labs have run, another sheet of this run leaves what was told as it was.
    rehearsed("L06", tmp_path, pace="smoke")
    sheet_again("L71", tmp_path)
    assert of_run(warehouse, "L71") == measured
    assert findings(warehouse, "L71") == judged


def test_l72_watches_the_alert_s_condition_and_adds_up_what_prior_labs_idled(tmp_path: Path) -> None:
    for lab in ("L05", "L06"):
        rehearsed(lab, tmp_path, pace="smoke")
    warehouse = rehearsed("L72", tmp_path)
    judged = findings(warehouse, "L72")
    assert judged["the-condition-holds"]["verdict"] == "confirmed"
    assert judged["somebody-is-told"]["verdict"] == "inconclusive"
    assert judged["somebody-is-told"]["reason"] == "not done: idle-alert"
    assert judged["an-alert-would-have-paid"]["verdict"] == "inconclusive"  # two sessions say nothing of a year
    measured = of_run(warehouse, "L72")
    # Fifteen minutes, and a scrape or two.
    assert 900 <= measured["baseline", "condition_after"]["value"] <= 920
    assert "evaluated as time passes" in measured["baseline", "time_to_notify"]["gap_reason"]
    assert "2 sessions of labs before L72" in measured["all", "saved_share_15_min"]["gap_reason"]
    [prior] = warehouse.query(
        "SELECT sum(usd) AS usd, sum(gpu_hours) AS hours FROM idle_intervals WHERE lab < 'L72' AND kind <> 'cold_start'"
    )
    assert measured["all", "idle_usd"]["value"] == pytest.approx(prior["usd"])
    assert measured["all", "idle_gpu_hours"]["value"] == pytest.approx(prior["hours"])
    own = {
        row["kind"]: row["s"]
        for row in warehouse.query("SELECT kind, sum(duration_s) AS s FROM idle_intervals WHERE lab = 'L72' GROUP BY 1")
    }
    assert own["between_loads"] == pytest.approx(300, abs=1)
    assert own["after_load"] == pytest.approx(1800, abs=10)
    for session in warehouse.query("SELECT session_id, node_hours FROM session_cost WHERE part = 'idle'"):
        [seen] = warehouse.query(
            "SELECT sum(node_hours) AS h FROM idle_intervals WHERE session_id = ? AND kind <> 'cold_start'",
            [session["session_id"]],
        )
        assert seen["h"] == pytest.approx(float(session["node_hours"]), abs=1e-6)
    skipped = warehouse.query("SELECT outcome, detail FROM events WHERE name IN ('idle-alert', 'left-alone')")
    assert [(row["outcome"], json.loads(row["detail"])) for row in skipped] == [("skipped", {"targets": ["local"]})]


def test_l75_weighs_what_a_replica_serves_by_how_long_how_many_are_up(tmp_path: Path) -> None:
    warehouse = rehearsed("L75", tmp_path)
    judged = findings(warehouse, "L75")
    assert judged["the-hybrid-costs-less-than-half"]["verdict"] == "confirmed"
    assert judged["it-would-if-reclaims-were-independent"]["verdict"] == "confirmed"
    # What falls together leaves one replica with everybody's traffic.
    assert judged["the-hybrid-serves-99-percent"]["verdict"] == "refuted"
    assert judged["spot-alone-does-not"]["verdict"] == "confirmed"
    measured = of_run(warehouse, "L75")
    hourly = {mix: measured[mix, "usd_per_hour"]["value"] for mix in ("on-demand", "hybrid-80", "spot-100")}
    assert hourly["on-demand"] == pytest.approx(5 * 0.526)
    # Less than list price, since a node that waits for capacity costs nothing.
    assert 0.526 + 3.8 * 0.0627 < hourly["hybrid-80"] < 0.526 + 4 * 0.0627
    assert measured["all", "cost_hybrid_over_on_demand"]["value"] == pytest.approx(
        hourly["hybrid-80"] / hourly["on-demand"]
    )
    results = warehouse.query("FROM capacity_results ORDER BY variant, position")
    assert {row["scenario"] for row in results} == {
        f"{rate} per hour, {way}" for rate in ("0.01", "0.05", "0.1") for way in ("correlated", "independent")
    }
    # Every mix comes back after the cold start of a whole node, though only the first variant's session had one.
    assert len({row["cold_start_s"] for row in results}) == 1
    assert results[0]["cold_start_s"] > 600
    for row in results:
        if row["spot_nodes"]:
            down_h = (row["cold_start_s"] + row["wait_s"]) / 3600
            assert row["spot_availability"] == pytest.approx(1 / (1 + row["reclaims_per_hour"] * down_h), abs=0.012)
    served = {(row["variant"], row["scenario"]): row["served_share"] for row in results}
    for mix in ("hybrid-80", "spot-100"):
        for way in ("correlated", "independent"):
            shares = [served[mix, f"{rate} per hour, {way}"] for rate in ("0.01", "0.05", "0.1")]
            assert shares == sorted(shares, reverse=True)
    assert measured["on-demand", "served_share"]["value"] > 0.99
    assert measured["on-demand", "minutes_below_capacity"]["value"] == 0.0
    assert measured["all", "usd_per_point_of_on_demand"]["value"] > 0
