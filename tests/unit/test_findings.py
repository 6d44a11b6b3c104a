"""A claim is confirmed or refuted only when the whole interval says so."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest

from lab_pipelines.statistics.findings import (
    agreement,
    batch_means,
    bound,
    outcomes,
    plain_ratio,
    quantile_ratio,
    ratio,
)
from lab_pipelines.statistics.quantiles import needed_for

STEADY = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 100.1, 99.9, 100.0]


def scaled(factor: float) -> list[float]:
    return [value * factor for value in STEADY]


@pytest.mark.parametrize(
    ("factor", "comparison", "verdict"),
    [
        (1.10, "below", "confirmed"),
        (1.60, "below", "refuted"),
        (1.25, "below", "inconclusive"),
        (1.60, "above", "confirmed"),
        (1.10, "above", "refuted"),
        (1.25, "above", "inconclusive"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(factor: float, comparison: str, verdict: str) -> None:
    judged = ratio(scaled(factor), STEADY, comparison=comparison, threshold=1.25)  # pyright: ignore[reportArgumentType]
    assert judged.verdict == verdict
    assert judged.effect == pytest.approx(factor)
    assert judged.low is not None and judged.high is not None and judged.low < factor < judged.high


def test_too_few_batches_and_a_stage_without_throughput_are_inconclusive() -> None:
    few = ratio(STEADY[:7], STEADY, comparison="below", threshold=2)
    assert (few.verdict, few.effect) == ("inconclusive", None)
    assert "7 batches" in few.reason
    silent = ratio([0.0] * 10, STEADY, comparison="below", threshold=2)
    assert (silent.verdict, silent.effect) == ("inconclusive", None)


def test_the_interval_holds_the_true_ratio_about_95_times_in_100() -> None:
    generator = np.random.default_rng(6)
    trials, held = 2000, 0
    for _ in range(trials):
        numerator, denominator = generator.normal(120, 20, 10), generator.normal(100, 10, 10)
        judged = ratio(numerator.tolist(), denominator.tolist(), comparison="above", threshold=1)
        assert judged.low is not None and judged.high is not None
        held += judged.low <= 1.2 <= judged.high
    assert 0.93 <= held / trials <= 0.97


def test_batch_means_are_rates_and_ignore_what_lies_outside_the_window() -> None:
    arrivals = [(at / 10, 2.0) for at in range(-50, 150)]  # 20 per second from -5 to 15 s
    means = batch_means(arrivals, start=0.0, end=10.0, batches=10)
    assert len(means) == 10
    assert all(math.isclose(mean, 20.0, rel_tol=0.11) for mean in means)
    assert sum(means) == pytest.approx(200)


@pytest.mark.parametrize(
    ("values", "comparison", "threshold", "verdict", "effect"),
    [
        ([3.0, 5.0], "above", 2.0, "confirmed", 3.0),
        ([3.0, 5.0], "above", 3.0, "refuted", 3.0),
        ([3.0, 5.0], "below", 5.0, "refuted", 5.0),
        ([3.0, 5.0], "below", 6.0, "confirmed", 5.0),
        ([3.0, None], "below", 6.0, "inconclusive", 3.0),  # the gap might have been above it
        ([7.0, None], "below", 6.0, "refuted", 7.0),  # one that is above it settles the matter
        ([None], "below", 6.0, "inconclusive", None),
        ([], "below", 6.0, "inconclusive", None),
    ],
)
def test_a_bound_is_judged_on_its_worst_value_and_a_gap_confirms_nothing(
    values: list[float | None],
    comparison: Literal["above", "below"],
    threshold: float,
    verdict: str,
    effect: float | None,
) -> None:
    judgement = bound(values, comparison=comparison, threshold=threshold)
    assert (judgement.verdict, judgement.effect) == (verdict, effect)
    assert judgement.n == sum(value is not None for value in values)


@pytest.mark.parametrize(
    ("pairs", "verdict", "effect"),
    [
        ([(101.0, 100.0), (99.5, 100.0)], "confirmed", 0.01),
        ([(103.0, 100.0), (100.0, 100.0)], "refuted", 0.03),
        ([(100.0, 100.0), (None, 100.0)], "inconclusive", 0.0),
        ([(1.0, 0.0)], "inconclusive", None),
        ([], "inconclusive", None),
    ],
)
def test_two_measures_agree_only_if_every_pair_does(
    pairs: list[tuple[float | None, float | None]], verdict: str, effect: float | None
) -> None:
    judgement = agreement(pairs, tolerance=0.02)
    assert judgement.verdict == verdict
    assert judgement.effect == (None if effect is None else pytest.approx(effect))


@pytest.mark.parametrize(
    ("ended", "verdict", "reason"),
    [
        ({"a": "ok", "b": "ok", "c": "failed"}, "confirmed", "all 2 steps"),
        ({"a": "ok", "b": "failed"}, "refuted", "not as expected: b"),
        ({"a": "ok"}, "inconclusive", "not done: b"),
        ({"a": "failed"}, "refuted", "not as expected: a"),
    ],
)
def test_outcomes_are_those_of_the_steps_that_the_claim_names(ended: dict[str, str], verdict: str, reason: str) -> None:
    judgement = outcomes(ended, ["a", "b"])
    assert judgement.verdict == verdict
    assert reason in judgement.reason


def test_a_sample_too_small_for_a_quantile_decides_nothing() -> None:
    needed = needed_for(0.95, confidence=0.975)
    values = [float(n) for n in range(1, needed + 1)]
    few = quantile_ratio(values[:-1], values, quantile=0.95, comparison="below", threshold=2)
    assert few.verdict == "inconclusive" and f"needs {needed} on each side" in few.reason
    enough = quantile_ratio(values, values, quantile=0.95, comparison="below", threshold=2)
    assert enough.low is not None and enough.low * (enough.high or 0) == pytest.approx(1.0), "the same on both sides"


@pytest.mark.parametrize(("factor", "verdict"), [(0.3, "confirmed"), (0.5, "inconclusive"), (0.9, "refuted")])
def test_a_ratio_of_quantiles_needs_both_intervals_on_one_side(factor: float, verdict: str) -> None:
    generator = np.random.default_rng(14)
    base = list(generator.normal(1.0, 0.1, 400))
    changed = list(generator.normal(factor, 0.1 * factor, 400))
    judged = quantile_ratio(changed, base, quantile=0.95, comparison="below", threshold=0.5)
    assert judged.verdict == verdict
    assert judged.low is not None and judged.high is not None and judged.effect is not None
    assert judged.low < judged.effect < judged.high
    assert judged.effect == pytest.approx(factor, rel=0.05)


def test_one_number_over_another_has_no_interval_and_a_gap_decides_nothing() -> None:
    judged = plain_ratio(3.0, 2.0, comparison="above", threshold=1.4)
    assert (judged.verdict, judged.effect, judged.low) == ("confirmed", 1.5, None)
    assert plain_ratio(3.0, 2.0, comparison="below", threshold=1.4).verdict == "refuted"
    for numerator, denominator in ((None, 2.0), (3.0, None), (3.0, 0.0)):
        assert plain_ratio(numerator, denominator, comparison="above", threshold=1).verdict == "inconclusive"
