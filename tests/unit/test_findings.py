"""A claim is confirmed or refuted only when the whole interval says so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lab_pipelines.statistics.findings import batch_means, ratio

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
