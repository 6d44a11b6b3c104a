"""A lab with several variants on this machine: one run walks them all, each with a session and rows of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import materialize

from assets import cost_attribution, deployed_stack, finops_sheet, load_run, metrics_snapshot
from lab_pipelines.build import get_local_resources
from lab_pipelines.catalog.loader import CATALOG_DIR
from lab_pipelines.deployment import Deployment
from resources.labs import Labs
from resources.warehouse import Warehouse

SETTING = "servingEngineSpec.modelSpec[0].vllmConfig"
VARIANTS = [
    {"id": "wide", "description": "256 sequences at once"},
    {
        "id": "no-memory",
        "description": "a share of memory that the weights alone exceed",
        "refused": "No available memory for the cache blocks",
        "values": {"vllm": {f"{SETTING}.gpuMemoryUtilization": 0.4}},
    },
    {
        "id": "narrow",
        "description": "one sequence at once",
        "values": {"vllm": {f"{SETTING}.maxNumSeqs": 1}},
    },
]
FINDINGS = [
    {
        "id": "narrow-is-slower",
        "kind": "ratio",
        "quantity": "ttft_p50",
        "claim": "With one sequence at once, four users wait longer for their first token",
        "numerator": {"variant": "narrow", "load": 4},
        "denominator": {"variant": "wide", "load": 4},
        "comparison": "above",
        "threshold": 2.0,
    },
    {"id": "refused", "kind": "outcomes", "claim": "It does not fit", "variant": "no-memory", "steps": ["deploy"]},
    {"id": "all-came", "kind": "outcomes", "claim": "All is as expected", "steps": ["deploy", "ramp"]},
]


def catalogue(folder: Path) -> Path:
    """A catalogue with L06 in three variants."""
    spec: dict[str, Any] = yaml.safe_load((CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8"))
    spec |= {"variants": VARIANTS, "findings": FINDINGS}
    (folder / "L06.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    data_dir = tmp_path_factory.mktemp("variants")
    resources = get_local_resources(Deployment(data_dir=data_dir))
    labs = Labs(target="local", pace="smoke", catalog_dir=str(catalogue(tmp_path_factory.mktemp("catalogue"))))
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


def test_each_variant_has_a_session_and_they_follow_one_another(warehouse: Warehouse) -> None:
    closed = warehouse.query("SELECT * FROM stack_sessions WHERE state = 'closed' ORDER BY requested_at")
    assert [row["variant"] for row in closed] == ["wide", "no-memory", "narrow"]
    assert len({row["session_id"] for row in closed}) == 3
    assert len({row["run_id"] for row in closed}) == 1
    for before, after in pairwise(closed):
        assert before["released_at"] == after["requested_at"]
    assert [row["refusal"] is None for row in closed] == [True, False, True]
    # The node of the first one is there for the next: only the engine starts anew.
    assert closed[0]["node_ready_s"] is not None and closed[2]["node_ready_s"] is None
    assert closed[2]["model_loaded_s"] is not None


def test_the_refused_variant_is_a_result_and_no_load_was_sent_to_it(warehouse: Warehouse) -> None:
    stages = warehouse.query("SELECT variant, count(*) AS n FROM load_stages GROUP BY 1 ORDER BY 1")
    assert stages == [{"variant": "narrow", "n": 2}, {"variant": "wide", "n": 2}]
    deploys = warehouse.query("SELECT variant, outcome FROM events WHERE kind = 'deploy' ORDER BY started_at")
    assert [(row["variant"], row["outcome"]) for row in deploys] == [
        ("wide", "ok"),
        ("no-memory", "ok"),
        ("narrow", "ok"),
    ]


def test_a_variant_s_values_reach_its_engine_and_its_rows(warehouse: Warehouse) -> None:
    running = warehouse.query(
        "SELECT variant, max(value) AS most FROM metric_samples WHERE measure = 'requests_running' AND users = 4 "
        "GROUP BY 1 ORDER BY 1"
    )
    assert running == [{"variant": "narrow", "most": 1.0}, {"variant": "wide", "most": 4.0}]


def test_findings_compare_variants_and_say_which_came_up(warehouse: Warehouse) -> None:
    found = {row["finding"]: row for row in warehouse.query("SELECT * FROM findings")}
    assert found["narrow-is-slower"]["variant"] == "narrow"
    assert found["refused"]["verdict"] == "confirmed" and found["refused"]["variant"] == "no-memory"
    assert found["all-came"]["verdict"] == "confirmed" and found["all-came"]["n"] == 5
    # Some ten requests are too few for an interval, and the verdict says so rather than guess.
    assert found["narrow-is-slower"]["verdict"] in ("confirmed", "inconclusive")


def test_counters_of_one_variant_are_not_mixed_with_another_s(warehouse: Warehouse) -> None:
    totals = warehouse.query("SELECT * FROM counter_totals")
    assert {row["variant"] for row in totals} == {"wide", "narrow"}
    for row in totals:
        assert row["server_total"] == pytest.approx(row["client_total"], rel=0.02, abs=row["client_unknown"]), row


def test_each_session_s_money_adds_up(warehouse: Warehouse) -> None:
    sums = warehouse.query(
        "SELECT s.variant, s.nodes * (coalesce(s.cold_start_s, 0) + s.held_s - coalesce(s.first_token_s, 0)) / 3600 "
        "AS session_hours, sum(c.PricingQuantity)::DOUBLE AS hours "
        "FROM stack_sessions s JOIN cost_records c USING (session_id) WHERE s.state = 'closed' GROUP BY ALL"
    )
    assert {row["variant"] for row in sums} == {"wide", "no-memory", "narrow"}
    for row in sums:
        assert row["hours"] == pytest.approx(row["session_hours"], abs=1e-6)
