"""What a rehearsal says of a real run: intervals that hold what was rehearsed, and requests that would decide."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.rehearsed_plan import Outlook, RehearsedStage, RehearsedVariant, outlook, requests_needed
from lab_pipelines.statistics.quantiles import needed_for

L06 = load_catalog().spec("L06")
T4 = "Standard_NC4as_T4_v3"


def stage(load: float, *, duration_s: float = 200.0, requests: int = 96) -> RehearsedStage:
    return RehearsedStage("baseline", "ramp", 0, load, duration_s, 120.0, 900.0, requests)


def variant(
    *stages: RehearsedStage, error: float = 0.1, spread_s: float = 60.0, price: Decimal | None = Decimal("0.526")
) -> RehearsedVariant:
    return RehearsedVariant(
        variant="baseline",
        sku=T4,
        nodes=1,
        usd_per_node_hour=price,
        cold_start_s=800.0,
        outside_s=10.0,
        stages=stages,
        draw_cold_start=lambda numbers: 800.0 + spread_s * (2 * numbers.random() - 1),
        model_error=error,
    )


def looked(*variants: RehearsedVariant, findings: list[dict[str, Any]] | None = None) -> Outlook:
    return outlook(L06, variants, findings or [])


def test_the_interval_holds_what_was_rehearsed_and_the_cost_follows_the_hours() -> None:
    seen = looked(variant(stage(1), stage(32, duration_s=300.0)))
    took = seen.duration_s
    assert took.expected == 800 + 10 + 200 + 300
    assert took.low < took.expected < took.high
    hours = seen.node_hours[T4]
    assert hours.high == pytest.approx(took.high / 3600)
    assert seen.usd is not None and seen.usd.high == pytest.approx(hours.high * 0.526)


def test_a_stage_that_only_held_its_time_does_not_stretch_and_none_exceeds_what_the_spec_allows() -> None:
    held = looked(variant(stage(1, duration_s=120.0), spread_s=0.0)).duration_s
    assert held.low == held.expected == held.high
    wild = looked(variant(stage(1, duration_s=890.0), spread_s=0.0, error=3.0)).duration_s
    assert wild.low == 800 + 10 + 120 and wild.high == 800 + 10 + 900


def test_without_a_price_there_is_no_cost() -> None:
    assert looked(variant(stage(1), price=None)).usd is None


def test_what_the_rehearsal_leaves_open_is_told_with_its_reason_whatever_kind_of_claim_it_is() -> None:
    judged = {"verdict": "confirmed", "reason": "held", "effect": None, "interval_low": None, "interval_high": None}
    findings = [judged | {"finding": "held"}, judged | {"finding": "pairs", "verdict": "inconclusive", "reason": "few"}]
    assert looked(variant(stage(16)), findings=findings).open == {"pairs": "few"}


def test_the_same_rows_give_the_same_intervals() -> None:
    assert looked(variant(stage(4))) == looked(variant(stage(4)))


def test_two_kinds_of_nodes_are_counted_apart() -> None:
    other = variant(stage(8))
    seen = outlook(L06, [variant(stage(4)), RehearsedVariant(**{**vars(other), "sku": "A100", "nodes": 2})], [])
    assert seen.node_hours["A100"].expected == pytest.approx(2 * seen.node_hours[T4].expected)


def test_a_finding_says_which_stages_it_needs_and_how_many_requests() -> None:
    judged = {
        "finding": "throughput-saturates",
        "verdict": "confirmed",
        "reason": "[1, 1.1] is below 1.25",
        "effect": 1.05,
        "interval_low": 1.0,
        "interval_high": 1.1,
    }
    [need] = looked(variant(stage(16), stage(32)), findings=[judged]).needs
    assert need.stages == ["baseline · ramp · 32", "baseline · ramp · 16"]
    assert need.requests_rehearsed == 96
    assert need.requests_needed is not None and 8 <= need.requests_needed < 96
    assert not need.is_least
    turns = (variant(stage(16), stage(32)), variant(stage(16, requests=80), stage(32, requests=90)))
    assert [need.requests_rehearsed for need in looked(*turns, findings=[judged]).needs] == [80]
    refused = judged | {"verdict": "inconclusive", "effect": None, "interval_low": None, "interval_high": None}
    [need] = looked(variant(stage(16), stage(32)), findings=[refused]).needs
    assert (need.requests_needed, need.is_least) == (97, True)


def test_requests_needed_fall_with_the_distance_and_never_below_what_an_interval_takes() -> None:
    def needed(effect: float, spread: float = 1.1, quantity: str = "throughput") -> int | None:
        return requests_needed(
            quantity, threshold=1.0, effect=effect, low=effect / spread, high=effect * spread, requests=100
        )

    close, far = needed(1.05), needed(1.5)
    assert close is not None and far is not None and close > 100 > far
    assert needed(1.005) is None
    assert needed(5.0, quantity="ttft_p95") == needed_for(0.95)
    none = {"threshold": 1, "effect": None, "low": None, "high": None}
    assert requests_needed("ttft_p99", **none, requests=0) == needed_for(0.99)
    # 225 that were refused an interval, since they depend on each other, weren't enough.
    assert requests_needed("tpot_p95", **none, requests=225) == 226
