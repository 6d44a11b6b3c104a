"""Each blocking check passes on a sound run and fails on the fault it is there for."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dagster import (
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetKey,
    DagsterInstance,
    TableMetadataValue,
    asset,
    materialize,
)

from assets import checks, claim_checks
from lab_pipelines.partitions import lab_partitions
from resources.labs import Labs
from tests.support.rows.results import finding_row
from tests.support.rows.runs import lab_run
from tests.support.warehouses import publish_run, warehouse_in

Rows = dict[str, list[dict[str, Any]]]


def verdict(tmp_path: Path, check: AssetChecksDefinition, published: Rows, *, blocks: bool = True) -> tuple[bool, str]:
    """Run one check on a warehouse that holds `published`; whether it passed, and what it said."""
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, published)
    [key] = check.check_keys

    @asset(key=key.asset_key, partitions_def=lab_partitions)
    def checked() -> None: ...

    result = materialize(
        [checked, check],
        partition_key="L06",
        instance=DagsterInstance.ephemeral(),
        resources={"labs": Labs(target="local"), "warehouse": warehouse},
        raise_on_error=False,
    )
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.asset_key == AssetKey(key.asset_key.path)
    assert result.success == (evaluation.passed or not blocks), "the check blocks, or only warns"
    return evaluation.passed, evaluation.description or ""


@pytest.fixture
def run() -> Rows:
    return lab_run()


ALL = [
    checks.every_stage_has_requests,
    checks.error_rate_is_within_budget,
    checks.token_counts_are_exact,
    checks.prometheus_agrees_with_client,
    checks.cost_parts_sum_to_the_session,
]


@pytest.mark.parametrize("check", ALL, ids=lambda check: next(iter(check.check_keys)).name)
def test_a_sound_run_passes(tmp_path: Path, run: Rows, check: AssetChecksDefinition) -> None:
    passed, said = verdict(tmp_path, check, run)
    assert passed, said


def test_a_stage_with_too_few_requests_stops_the_run(tmp_path: Path, run: Rows) -> None:
    run["load_stages"][1]["requests_in_stage"] = 7
    passed, said = verdict(tmp_path, checks.every_stage_has_requests, run)
    assert not passed and "7 of 20" in said and "raise max_hold_s" in said


def test_no_stage_at_all_stops_the_run(tmp_path: Path, run: Rows) -> None:
    del run["load_stages"]
    passed, said = verdict(tmp_path, checks.every_stage_has_requests, run)
    assert not passed and "no stage" in said


def test_failed_requests_beyond_the_budget_stop_the_run_and_cut_ones_do_not(tmp_path: Path, run: Rows) -> None:
    for request in run["requests"][:3]:
        request.update(outcome="cut", valid=False)
    assert verdict(tmp_path / "cut", checks.error_rate_is_within_budget, run)[0]
    for request in run["requests"][:3]:
        request.update(outcome="http_error", http_status=500, error="boom", valid=False)
    passed, said = verdict(tmp_path / "failed", checks.error_rate_is_within_budget, run)
    assert not passed and "3 http_error, e.g. boom" in said


@pytest.mark.parametrize("column", ["output_tokens", "input_tokens"])
@pytest.mark.parametrize("value", [255, None])
def test_a_single_request_with_another_length_stops_the_run(
    tmp_path: Path, run: Rows, column: str, value: int | None
) -> None:
    first = next(r for r in run["requests"] if r["outcome"] == "ok")
    first[column] = value
    passed, said = verdict(tmp_path, checks.token_counts_are_exact, run)
    assert not passed and re.search(r"\b1 (had )?another", said), said


def test_counters_that_disagree_stop_the_run_and_missing_ones_are_a_gap(tmp_path: Path, run: Rows) -> None:
    total = run["counter_totals"][0]
    total.update(server_total=total["client_total"] * 1.02, disagreement=0.02)
    passed, said = verdict(tmp_path / "wrong", checks.prometheus_agrees_with_client, run)
    assert not passed and "allowed difference 1.0%" in said
    total.update(server_total=None, disagreement=None)
    passed, said = verdict(tmp_path / "gap", checks.prometheus_agrees_with_client, run)
    assert passed and "nothing could be compared" in said


def test_a_missing_part_of_the_cost_stops_the_run(tmp_path: Path, run: Rows) -> None:
    run["cost_records"].pop()
    assert not verdict(tmp_path, checks.cost_parts_sum_to_the_session, run)[0]


def test_a_cent_too_much_stops_the_run(tmp_path: Path, run: Rows) -> None:
    run["cost_records"][0]["ListCost"] += Decimal("0.01")
    assert not verdict(tmp_path, checks.cost_parts_sum_to_the_session, run)[0]


def test_a_session_without_a_price_still_adds_up(tmp_path: Path) -> None:
    passed, said = verdict(tmp_path, checks.cost_parts_sum_to_the_session, lab_run(priced=False))
    assert passed and "without a price" in said


@pytest.mark.parametrize(("said", "passes"), [("confirmed", True), ("refuted", False), ("inconclusive", False)])
def test_a_lab_s_claims_are_shown_beside_its_asset_and_block_nothing(
    tmp_path: Path, run: Rows, said: str, passes: bool
) -> None:
    run["findings"] = [finding_row(verdict=said, reason="[1.05, 1.15] is below 1.25")]
    [key] = claim_checks.claims.check_keys
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, run)

    @asset(key=key.asset_key, partitions_def=lab_partitions)
    def checked() -> None: ...

    result = materialize(
        [checked, claim_checks.claims],
        partition_key="L06",
        instance=DagsterInstance.ephemeral(),
        resources={"labs": Labs(target="local"), "warehouse": warehouse},
    )
    [evaluation] = result.get_asset_check_evaluations()
    assert result.success and not evaluation.blocking
    assert (evaluation.passed, evaluation.severity) == (passes, AssetCheckSeverity.WARN)
    assert (evaluation.description or "").startswith(f"{int(passes)} of 1 claims confirmed")
    table = evaluation.metadata["findings"]
    assert isinstance(table, TableMetadataValue)
    [record] = table.records
    assert (record.data["verdict"], record.data["low"], record.data["n"]) == (said, 1.05, 2)
    assert record.data["reason"] == "[1.05, 1.15] is below 1.25"
