"""Two turns of two variants with real processes: engines that start anew for each visit, Locust, Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from dagster import materialize

from assets import cost_attribution, deployed_stack, finops_sheet, load_run, metrics_snapshot
from lab_pipelines.build import get_local_resources
from lab_pipelines.deployment import Deployment
from resources.labs import Labs
from resources.warehouse import Warehouse
from tests.support.turns_lab import WAITS_LONGER, turns_catalogue

pytestmark = pytest.mark.alone

PACE = {"hold_s": 10.0, "min_requests": 6}
COLLECT = {"kind": "collect_logs", "name": "log", "component": "vllm"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("turns")


@pytest.fixture(scope="module")
def warehouse(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    # The claim wants five turns; two, as `labs run --turns 2` asks for, leave it open.
    catalog = turns_catalogue(tmp_path_factory.mktemp("local") / "catalogue", turns=5, pace=PACE, then=[COLLECT])
    resources = get_local_resources(Deployment(data_dir=data_dir))
    labs = Labs(target="local", turns=2, variant="wide,narrow", catalog_dir=str(catalog))
    result = materialize(
        [
            deployed_stack.deployed_stack,
            load_run.load_run,
            metrics_snapshot.metrics_snapshot,
            cost_attribution.cost_attribution,
            finops_sheet.finops_sheet,
        ],
        partition_key="L06",
        resources={**resources, "labs": labs},
    )
    assert result.success
    yield resources["warehouse"]


def test_the_second_turn_goes_backwards_and_each_visit_starts_its_engine(warehouse: Warehouse) -> None:
    closed = warehouse.query("SELECT * FROM stack_sessions WHERE state = 'closed' ORDER BY requested_at")
    assert [(row["variant"], row["trial"]) for row in closed] == [
        ("wide", 1),
        ("narrow", 1),
        ("narrow", 2),
        ("wide", 2),
    ]
    lease = closed[0]["session_id"]
    assert [row["session_id"] for row in closed[1:]] == [f"{lease}.narrow", f"{lease}.narrow.T2", f"{lease}.wide.T2"]
    for before, after in pairwise(closed):
        assert before["released_at"] == after["requested_at"]
        assert (after["node_ready_s"], after["model_loaded_s"] is None) == (None, False)


def test_each_visit_has_its_own_requests_logs_and_folder(warehouse: Warehouse, data_dir: Path) -> None:
    visits = warehouse.query(
        "SELECT variant, trial, count(*) AS n, count(DISTINCT request_id) AS ids FROM requests "
        "GROUP BY ALL ORDER BY ALL"
    )
    assert [(row["variant"], row["trial"]) for row in visits] == [
        ("narrow", 1),
        ("narrow", 2),
        ("wide", 1),
        ("wide", 2),
    ]
    assert all(row["n"] == row["ids"] for row in visits)
    [run] = (data_dir / "runs").iterdir()
    assert {"wide", "narrow", "wide.T2", "narrow.T2"} <= {path.name for path in (run / "L06").iterdir()}
    # A line of the engine's log belongs to the session that it was written in.
    lines = warehouse.query("SELECT session_id, count(*) AS n FROM log_requests GROUP BY ALL")
    served = warehouse.query(
        "SELECT session_id, count(*) FILTER (outcome = 'ok') AS ok, count(*) AS n FROM requests GROUP BY ALL"
    )
    assert len(lines) == len(served) == 4
    logged = {row["session_id"]: row["n"] for row in lines}
    for row in served:  # one more: the request that ended the cold start
        assert row["ok"] <= logged[row["session_id"]] <= row["n"] + 1


def test_turns_draw_other_prompts_and_counters_agree_with_the_client(warehouse: Warehouse) -> None:
    totals = warehouse.query("SELECT * FROM counter_totals")
    assert {(row["variant"], row["trial"]) for row in totals} == {(v, t) for v in ("wide", "narrow") for t in (1, 2)}
    for row in totals:
        assert row["server_total"] == pytest.approx(row["client_total"], rel=0.02, abs=row["client_unknown"]), row


def test_two_turns_are_too_few_for_a_verdict_and_the_reason_says_so(warehouse: Warehouse) -> None:
    [longer] = warehouse.query("SELECT * FROM findings WHERE finding = ?", [WAITS_LONGER["id"]])
    assert (longer["verdict"], longer["n"], longer["trial"]) == ("inconclusive", 2, 2)
    assert "2 pairs; a comparison needs 5" in longer["reason"]


def test_the_money_of_all_turns_adds_up(warehouse: Warehouse) -> None:
    [sums] = warehouse.query(
        "SELECT (SELECT sum(usd) FROM session_money) AS money, (SELECT sum(usd) FROM run_overview) AS shown, "
        "(SELECT count(*) FROM run_overview) AS sessions"
    )
    assert sums["money"] == sums["shown"] > 0
    assert sums["sessions"] == 4
