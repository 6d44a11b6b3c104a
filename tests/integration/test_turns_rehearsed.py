"""Six turns of a lab's variants in one rehearsal: what pairs of one turn say; nothing is lost or counted twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.deployment import REPO_ROOT, Deployment
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import render_phase
from lab_pipelines.report.read import Report, read_report
from resources.labs import Labs
from resources.warehouse import Warehouse
from tests.support.rehearsals import LAB_ASSETS
from tests.support.turns_lab import turns_catalogue

TURNS = 6
WALKED = ["wide", "also-wide", "narrow"]
Row = dict[str, Any]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return turns_catalogue(tmp_path_factory.mktemp("turns") / "catalogue", turns=TURNS)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory, catalogue: Path) -> Iterator[Warehouse]:
    data_dir = tmp_path_factory.mktemp("data")
    defs = build_defs(
        target="rehearsal",
        deployment=Deployment(data_dir=data_dir),
        resource_overrides={"labs": Labs(target="rehearsal", catalog_dir=str(catalogue))},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(partition_key="L06", asset_selection=LAB_ASSETS).success
    yield Warehouse(data_dir=str(data_dir))


@pytest.fixture(scope="module")
def report(warehouse: Warehouse) -> Report:
    return read_report(warehouse, load_catalog(), now=datetime(2026, 11, 24, tzinfo=UTC))


def found(warehouse: Warehouse) -> dict[str, Row]:
    return {row["finding"]: row for row in warehouse.query("FROM findings")}


def total(warehouse: Warehouse, sql: str) -> Any:
    [row] = warehouse.query(sql)
    [value] = row.values()
    return value


# The walk


def test_each_turn_has_each_variant_once_and_each_visit_is_a_session(warehouse: Warehouse) -> None:
    sessions = warehouse.query("FROM stack_sessions WHERE state = 'closed' ORDER BY requested_at")
    assert len({row["session_id"] for row in sessions}) == len(sessions) == len(WALKED) * TURNS + 1
    assert len({row["run_id"] for row in sessions}) == 1
    came_up = [row for row in sessions if row["refusal"] is None]
    for turn in range(1, TURNS + 1):
        assert sorted(row["variant"] for row in came_up if row["trial"] == turn) == sorted(WALKED)
    assert [row["trial"] for row in came_up] == sorted(row["trial"] for row in came_up)
    first = [next(row["variant"] for row in came_up if row["trial"] == turn) for turn in range(1, TURNS + 1)]
    assert Counter(first) == dict.fromkeys(WALKED, TURNS // len(WALKED))
    # The one that is refused cost its cold start once.
    assert [row["trial"] for row in sessions if row["refusal"] is not None] == [1]
    for before, after in pairwise(sessions):
        assert before["released_at"] == after["requested_at"]
    assert [row["node_ready_s"] is None for row in sessions] == [False] + [True] * (len(sessions) - 1)


def test_each_visit_has_its_own_rows(warehouse: Warehouse) -> None:
    for table in ("load_stages", "requests", "metric_summaries", "counter_totals", "events", "finops_sheet"):
        per_visit = warehouse.query(f"SELECT variant, trial, count(*) AS n FROM {table} GROUP BY ALL")
        assert len([row for row in per_visit if row["variant"] in WALKED]) == len(WALKED) * TURNS, table
    ids = "SELECT count(*) - count(DISTINCT (session_id, request_id)) FROM requests"
    assert total(warehouse, ids) == 0


def test_variants_of_one_turn_are_offered_the_same_load_and_other_turns_another(warehouse: Warehouse) -> None:
    offered = warehouse.query(
        "SELECT variant, trial, list(round(epoch(scheduled_at - started_at), 3) ORDER BY scheduled_at)[:40] AS due "
        "FROM requests JOIN load_stages USING (session_id, variant, trial, step, stage) GROUP BY ALL"
    )
    by_turn: dict[int, set[tuple[float, ...]]] = {}
    for row in offered:
        by_turn.setdefault(row["trial"], set()).add(tuple(row["due"]))
    assert all(len(schedules) == 1 for schedules in by_turn.values())
    assert len(set.union(*by_turn.values())) == TURNS


# What is found


def test_an_effect_is_confirmed_by_pairs_and_its_denial_refuted(warehouse: Warehouse) -> None:
    rows = found(warehouse)
    longer, never = rows["narrow-waits-longer"], rows["never-so-long"]
    assert (longer["verdict"], longer["n"], longer["variant"], longer["trial"]) == ("confirmed", TURNS, "narrow", TURNS)
    assert longer["interval_low"] > 1.2
    assert "pairs" in longer["method"] and "sign flips alone" in longer["reason"]
    assert never["verdict"] == "refuted"
    assert rows["by-the-server"]["verdict"] == "confirmed"
    # The same by hand, from the view's own quantiles, which are of all of a stage's requests.
    pairs = warehouse.query(
        "SELECT a.ttft_p95_s / b.ttft_p95_s AS ratio FROM stage_table a JOIN stage_table b USING (trial, step, stage) "
        "WHERE a.variant = 'narrow' AND b.variant = 'wide' ORDER BY trial"
    )
    product = 1.0
    for pair in pairs:
        product *= pair["ratio"]
    assert longer["effect"] == pytest.approx(product ** (1 / TURNS), rel=0.15)


def test_two_names_of_one_engine_are_not_told_apart(warehouse: Warehouse) -> None:
    alike = found(warehouse)["alike"]
    assert (alike["verdict"], alike["effect"]) == ("inconclusive", pytest.approx(1.0, abs=1e-3))
    assert "all 6 pairs gave the same" in alike["reason"]


def test_what_is_undecided_says_how_many_turns_it_takes(warehouse: Warehouse) -> None:
    tokens = found(warehouse)["as-many-tokens"]
    assert tokens["verdict"] == "inconclusive"
    assert "6 turns find a difference of" in tokens["reason"] and "turns" in tokens["reason"].rpartition("takes")[2]


def test_claims_on_steps_and_measures_are_of_all_turns_and_ratios_of_stages_of_the_last(warehouse: Warehouse) -> None:
    rows = found(warehouse)
    # Each of 18 visits came up and was sent its load, and one was refused as it should be.
    assert (rows["all-came"]["verdict"], rows["all-came"]["n"]) == ("confirmed", 2 * len(WALKED) * TURNS + 1)
    assert rows["never-in-vain"]["n"] == len(WALKED) * TURNS
    last = warehouse.query("SELECT variant, output_tokens_per_s FROM stage_table WHERE trial = ?", [TURNS])
    speed = {row["variant"]: row["output_tokens_per_s"] for row in last}
    assert rows["in-the-last-turn"]["effect"] == pytest.approx(speed["narrow"] / speed["wide"], rel=0.02)


# Sums


def test_money_is_that_of_all_turns_wherever_it_is_told(warehouse: Warehouse, report: Report) -> None:
    spent = total(warehouse, "SELECT sum(ListCost) FROM cost_records")
    assert spent > 0
    asked = {
        "session_money": "SELECT sum(usd) FROM session_money",
        "sheet": "SELECT sum(usd) FROM sheet_current WHERE stage IS NULL",
        "run_overview": "SELECT sum(usd) FROM run_overview",
        "namespace": "SELECT sum(usd_estimated) FROM namespace_cost",
    }
    for name, sql in asked.items():
        assert total(warehouse, sql) == spent, name
    [totals], [year] = report.totals, report.year
    assert totals["usd"] == year["usd"] == spent
    [section] = report.sections
    assert sum(row["usd"] for row in section.cost) == spent
    assert sum(variant["usd"] for variant in section.variants) == spent
    assert sum(row["usd"] for row in report.money["by_lab"]) == spent
    assert report.money["by_day"][-1]["estimated_usd"] == spent
    money = (REPO_ROOT / "warehouse" / "queries" / "where_did_the_money_go.sql").read_text(encoding="utf-8")
    rows = warehouse.query(money)
    assert sum(row["usd"] for row in rows) == pytest.approx(spent, abs=Decimal("0.00002"))
    assert {row["variant"] for row in rows} == {*WALKED, "no-memory"}
    for variant in WALKED:
        assert sum(row["share"] for row in rows if row["variant"] == variant) == pytest.approx(1.0, abs=0.005)


def test_node_time_has_each_session_once_and_fills_the_lease(warehouse: Warehouse) -> None:
    [held] = warehouse.query(
        "SELECT count(*) AS n, count(DISTINCT session_id) AS sessions, "
        "sum(epoch(held_until) - epoch(held_from)) AS seconds, "
        "max(epoch(held_until)) - min(epoch(held_from)) AS lease_s FROM node_time"
    )
    assert held["n"] == held["sessions"] == len(WALKED) * TURNS + 1
    assert held["seconds"] == pytest.approx(held["lease_s"], abs=1e-3)


def test_requests_and_tokens_are_counted_once(warehouse: Warehouse, report: Report) -> None:
    [raw] = warehouse.query(
        "SELECT sum(requests_ok)::BIGINT AS ok, sum(output_tokens)::BIGINT AS tokens FROM load_stages"
    )
    [totals] = report.totals
    assert (totals["requests_ok"], totals["output_tokens"]) == (raw["ok"], raw["tokens"])
    assert (totals["labs"], totals["runs"]) == (1, 1)


# Who speaks


def test_the_last_turn_speaks_and_every_turn_is_listed(warehouse: Warehouse, report: Report) -> None:
    latest = warehouse.query("SELECT variant, trial, turns FROM latest_run ORDER BY variant")
    assert latest == [
        {"variant": name, "trial": 1 if name == "no-memory" else TURNS, "turns": 1 if name == "no-memory" else TURNS}
        for name in sorted([*WALKED, "no-memory"])
    ]
    overview = warehouse.query("SELECT variant, trial, latest, turns FROM run_overview ORDER BY position")
    assert len(overview) == len(WALKED) * TURNS + 1
    assert [row["trial"] for row in overview if row["latest"] and row["variant"] in WALKED] == [TURNS] * len(WALKED)
    [section] = report.sections
    assert section.names == [*WALKED, "no-memory"]
    assert section.overview["repeated"] == []
    assert {(row["variant"], row["trial"]) for row in section.stages} == {(name, TURNS) for name in WALKED}
    assert len(section.stages) == len(WALKED)
    assert {row["finding"] for row in section.findings} == set(found(warehouse))
    for page in (render_phase(report, 1), render_markdown(report)):
        assert "Turn 6, the last of 6; the cost and comparisons by pairs are of all turns" in page
        assert page.count("one request in twenty waits longer") >= 1


def test_the_reference_sheet_takes_turns_as_trials(warehouse: Warehouse) -> None:
    rows = warehouse.query(
        "SELECT variant, trials, value, trial_low, trial_high FROM reference_sheet "
        "WHERE quantity = 'usd_per_1k_tokens' AND step IS NOT NULL ORDER BY variant"
    )
    assert [(row["variant"], row["trials"]) for row in rows] == [(name, TURNS) for name in sorted(WALKED)]
    for row in rows:
        assert row["trial_low"] < row["value"] < row["trial_high"]
