"""Two estimates against each other: a verdict needs the whole interval on one side, and near it a steady state."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from lab_pipelines.statistics.comparisons import Side, difference, level, ratio, requests_factor
from lab_pipelines.statistics.estimate import Estimate, refused
from lab_pipelines.statistics.quantiles import quantile

Comparison = Literal["above", "below"]


def side(value: float, low: float, high: float, *, drift: float = 0.0, n: int = 100) -> Side:
    return Side("8 users", Estimate(value, low, high, n, 60.0, "order statistics"), drift)


BASE = side(1.0, 0.9, 1.1)


@pytest.mark.parametrize(
    ("value", "comparison", "verdict"),
    [
        (1.5, "above", "confirmed"),
        (1.5, "below", "refuted"),
        (1.25, "above", "inconclusive"),
        (1.25, "below", "inconclusive"),
        (1.0, "above", "refuted"),
        (1.0, "below", "confirmed"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(value: float, comparison: Comparison, verdict: str) -> None:
    candidate = side(value, value - 0.05, value + 0.05)
    by_ratio = ratio(candidate, BASE, comparison=comparison, threshold=1.25)
    by_difference = difference(candidate, BASE, comparison=comparison, threshold=0.25)
    for judged, effect in ((by_ratio, value), (by_difference, value - 1)):
        assert (judged.verdict, judged.effect) == (verdict, pytest.approx(effect))
        assert judged.low is not None and judged.high is not None and judged.low < effect < judged.high
        assert "worth 60 and 60" in judged.method


def test_the_reaches_of_both_sides_add_up_like_standard_errors() -> None:
    found = difference(side(5, 4, 7), side(2, 1.5, 4), comparison="above", threshold=0)
    assert found.low == pytest.approx(3 - np.hypot(1, 2)) and found.high == pytest.approx(3 + np.hypot(2, 0.5))


def test_a_level_is_compared_with_a_number() -> None:
    assert level(side(1.8, 1.6, 1.95), comparison="below", threshold=2).verdict == "confirmed"
    assert level(side(1.8, 1.6, 2.05), comparison="below", threshold=2).verdict == "inconclusive"
    assert level(side(0.0, 0.0, 0.01), comparison="below", threshold=0.02).verdict == "confirmed"


def test_a_stage_that_is_not_steady_matters_only_near_the_threshold() -> None:
    near = ratio(side(1.5, 1.45, 1.55, drift=-0.3), BASE, comparison="above", threshold=1.2)
    assert near.verdict == "inconclusive"
    assert "8 users changes by -30% while it is measured: no steady state" in near.reason
    far = ratio(side(15, 14, 16, drift=-0.3), BASE, comparison="above", threshold=1.2)
    assert (far.verdict, "also as 8 users changes by -30%" in far.reason) == ("confirmed", True)
    assert level(side(1.8, 1.7, 1.9, drift=0.2), comparison="below", threshold=2).verdict == "inconclusive"
    apart = difference(side(5, 4.9, 5.1, drift=0.2), BASE, comparison="above", threshold=3.5)
    assert apart.verdict == "inconclusive"


def test_a_side_without_an_interval_decides_nothing_and_says_why() -> None:
    missing = Side("4 users", refused(0.4, 20, "order statistics", "20 values; an interval of the p95 needs 72"))
    for judged in (
        ratio(missing, BASE, comparison="above", threshold=1),
        difference(BASE, missing, comparison="above", threshold=1),
        level(missing, comparison="above", threshold=1),
    ):
        assert (judged.verdict, judged.effect, judged.n) == ("inconclusive", None, 20)
        assert judged.reason == "4 users: 20 values; an interval of the p95 needs 72"
    zero = ratio(BASE, side(0.1, 0.0, 0.2), comparison="above", threshold=1)
    assert zero.verdict == "inconclusive" and "reaches zero" in zero.reason


def test_an_open_claim_says_how_many_more_requests_and_what_could_have_been_seen() -> None:
    judged = difference(side(1.3, 1.2, 1.4), BASE, comparison="above", threshold=0.2)
    assert judged.verdict == "inconclusive"
    # Reach 0.141, distance 0.1: twice the requests do in one of two samples, and (2.8 / 1.96)^2 as many in 8 of 10.
    assert "about 4.1 times the requests would decide it at this effect; " in judged.reason
    assert judged.reason.endswith("as many as these decide effects below -0.00215 or above 0.402 (8 times in 10)")
    tied = difference(BASE, BASE, comparison="above", threshold=0.0)
    assert "no number of requests" in tied.reason


@pytest.mark.parametrize("effect", [1.1, 1.2])
def test_so_many_more_requests_do_decide_it(effect: float) -> None:
    """By simulation: an open ratio of medians, then as many times the requests as it asked for."""
    numbers = np.random.default_rng(47)

    def judged(n: int) -> tuple[str, float | None]:
        sides = [Side("s", quantile(scale * numbers.lognormal(0, 0.5, n), 0.5)) for scale in (effect, 1.0)]
        found = ratio(*sides, comparison="above", threshold=1.0)
        if found.effect is None or found.low is None or found.high is None:
            return found.verdict, None
        return found.verdict, requests_factor(effect, found.low, found.high, 1.0, scale="ratio", confidence=0.95)

    factors = [factor for verdict, factor in (judged(40) for _ in range(60)) if verdict == "inconclusive" and factor]
    needed = int(40 * float(np.median(factors)))
    assert sum(judged(needed)[0] == "confirmed" for _ in range(100)) >= 70


def test_what_could_have_been_told_is_told_8_times_in_10() -> None:
    numbers, n = np.random.default_rng(53), 400
    first = difference(
        Side("a", quantile(numbers.normal(0, 1, n), 0.5)),
        Side("b", quantile(numbers.normal(0, 1, n), 0.5)),
        comparison="above",
        threshold=0,
    )
    assert first.low is not None and first.high is not None
    seen = (first.high - first.low) / 2 * (1 + 0.8416 / 1.96)
    told = sum(
        difference(
            Side("a", quantile(numbers.normal(seen, 1, n), 0.5)),
            Side("b", quantile(numbers.normal(0, 1, n), 0.5)),
            comparison="above",
            threshold=0,
        ).verdict
        == "confirmed"
        for _ in range(300)
    )
    assert 0.65 <= told / 300 <= 0.95, "the width itself varies from sample to sample"
