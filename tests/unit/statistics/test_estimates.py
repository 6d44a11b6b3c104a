"""What every estimator refuses, and that no interval ever collapses to its value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lab_pipelines.statistics.dependence import inflation, is_dependent
from lab_pipelines.statistics.means import mean
from lab_pipelines.statistics.multiple import holm, simultaneous
from lab_pipelines.statistics.paired import (
    judge_pairs,
    minimum_detectable_ratio,
    paired_ratio,
    pairs_needed,
    sign_flip_p,
)
from lab_pipelines.statistics.quantiles import needed_for, quantile
from lab_pipelines.statistics.rates import rate
from lab_pipelines.statistics.steady import steadiness
from lab_pipelines.statistics.warmup import warm_up

numbers = np.random.default_rng(1)


def unordered(n: int) -> np.ndarray:
    """1 … n in an order without dependence."""
    for seed in range(20):
        series = np.random.default_rng(seed).permutation(np.arange(1.0, n + 1))
        if not is_dependent(series):
            return series
    raise AssertionError("twenty shuffles that all seem to depend on each other")


@pytest.mark.parametrize(("q", "needed"), [(0.95, 72), (0.99, 368), (0.999, 3688), (0.5, 6)])
def test_a_quantile_needs_so_many_values(q: float, needed: int) -> None:
    assert needed_for(q) == needed
    assert quantile(unordered(needed), q).bounded
    small = quantile(unordered(needed - 1), q)
    assert not small.bounded and small.value is not None and f"needs {needed}" in (small.reason or "")


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("n", [80, 120, 400, 3000])
def test_the_ranks_are_the_binomial_distribution_s(n: int, q: float) -> None:
    """The widest ranks that miss with no more than half of what is left on either side, counted with whole numbers."""
    found = quantile(unordered(n), q)
    ranks = np.arange(1, n + 1)
    misses_below, misses_above = binom.cdf(ranks - 1, n, q), binom.sf(ranks - 1, n, q)
    assert found.low == ranks[misses_below <= 0.025].max()
    assert found.high == ranks[misses_above <= 0.025].min()


def test_a_mean_of_few_or_of_all_too_similar_values_has_no_interval() -> None:
    assert "needs 40" in (mean(numbers.normal(size=39)).reason or "")
    walk = np.cumsum(numbers.normal(size=200))
    refused = mean(walk)
    assert refused.value == pytest.approx(walk.mean())
    assert not refused.bounded and "depend on each other too much" in (refused.reason or "")


@pytest.mark.parametrize("series", [[0.0] * 200, [0.1] * 200, [0.3, 0.7] * 100], ids=["zeros", "alike", "a pattern"])
def test_batches_that_are_all_alike_give_no_interval_of_no_width(series: list[float]) -> None:
    alike = mean(series)
    assert alike.value == pytest.approx(np.mean(series))
    assert not alike.bounded and "have the same mean" in (alike.reason or "")


@pytest.mark.parametrize("estimate", [mean, warm_up, steadiness, lambda s: quantile(s, 0.5), rate])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gap_is_no_number(estimate: Callable[[list[float]], object], bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        estimate([1.0] * 100 + [bad])


def test_nothing_at_all_is_no_value() -> None:
    assert mean([]).value is None
    assert quantile([], 0.5).value is None
    assert rate([]).value is None
    assert sign_flip_p([]) == 1.0
    assert steadiness([]).state == "unknown"
    assert warm_up([]).cut is None


def test_one_value_is_told_as_one() -> None:
    for reason in (
        mean([1.0]).reason,
        quantile([1.0], 0.5).reason,
        steadiness([1.0]).reason,
        warm_up([1.0]).reason,
        paired_ratio([1.0], [1.0]).reason,
    ):
        assert reason is not None and re.match("1 (value|pair);", reason)


def test_a_rate_of_none_or_all_keeps_a_width() -> None:
    none, all_of_them = rate([False] * 50), rate([True] * 50)
    assert (none.low, all_of_them.high) == (0.0, 1.0)
    assert none.high == pytest.approx(0.0713, abs=1e-3)
    for n in range(30, 400):  # rounding must not leave the share outside of its own interval
        assert rate([True] * n).high == 1.0


def test_failures_in_one_clump_are_no_sample_of_clumps() -> None:
    clump = rate([False] * 60 + [True] * 20 + [False] * 60)
    assert clump.value == pytest.approx(1 / 7)
    assert not clump.bounded and "depend on each other too much" in (clump.reason or "")


def test_pairs_must_be_enough_equal_in_number_and_positive() -> None:
    assert "needs 5" in (paired_ratio([1.1] * 4, [1.0] * 4).reason or "")
    assert "zero or less" in (paired_ratio([1.0, 0.0], [1.0, 1.0]).reason or "")
    with pytest.raises(ValueError, match="two sides"):
        paired_ratio([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs 5"):
        minimum_detectable_ratio(0.1, 4)


def test_pairs_that_are_all_the_same_have_no_interval() -> None:
    estimate = paired_ratio([1.2, 2.4, 3.6, 1.2, 1.2], [1.0, 2.0, 3.0, 1.0, 1.0])
    assert estimate.value == pytest.approx(1.2)
    assert not estimate.bounded and "gave the same" in (estimate.reason or "")


def test_a_verdict_on_pairs_says_how_many_turns_it_would_take() -> None:
    base = numbers.lognormal(0, 0.3, 8)
    noise = np.array([0.05, -0.05, 0.03, -0.03, 0.04, -0.04, 0.01, -0.01])
    faster = judge_pairs(1.2 * base * np.exp(noise), base, comparison="above", threshold=1.1)
    assert (faster.verdict, faster.effect, faster.n) == ("confirmed", pytest.approx(1.2), 8)
    assert "sign flips alone: p = 0.0078" in faster.reason
    assert judge_pairs(1.2 * base * np.exp(noise), base, comparison="below", threshold=1.1).verdict == "refuted"
    same = judge_pairs(1.01 * base * np.exp(noise), base, comparison="above", threshold=1.0)
    assert same.verdict == "inconclusive"
    spread = float(np.std(noise, ddof=1))
    assert f"8 turns find a difference of {minimum_detectable_ratio(spread, 8) - 1:.2%} in 8 of 10 runs" in same.reason
    assert "of 1.00%, takes more than 100 turns" in same.reason
    few = judge_pairs([1.2, 1.3], [1.0, 1.0], comparison="above", threshold=1.0)
    assert (few.verdict, "walk the variants in 5 turns or more" in few.reason) == ("inconclusive", True)


@pytest.mark.parametrize("ratio", [1.02, 1.05, 0.9])
def test_so_many_pairs_are_needed_and_one_fewer_is_not_enough(ratio: float) -> None:
    needed = pairs_needed(0.05, ratio)
    wanted = max(ratio, 1 / ratio)
    assert needed is not None and minimum_detectable_ratio(0.05, needed) <= wanted
    assert needed == 5 or minimum_detectable_ratio(0.05, needed - 1) > wanted
    assert pairs_needed(0.05, 1.001) is None
    assert pairs_needed(0.05, 1.0) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_no_more_than_one_by_one_and_no_less_than_bonferroni(p_values: list[float]) -> None:
    rejected = holm(p_values, alpha=0.05)
    for p, one in zip(p_values, rejected, strict=True):
        assert one <= (p <= 0.05)
        assert one >= (p <= 0.05 / len(p_values))


def test_simultaneous_intervals_share_what_their_confidence_leaves() -> None:
    assert simultaneous(0.95, 5) == pytest.approx(0.99)
    assert simultaneous(0.95, 0) == 0.95


def test_more_pairs_see_smaller_ratios() -> None:
    seen = [minimum_detectable_ratio(0.1, pairs) for pairs in (5, 10, 20, 40)]
    assert seen == sorted(seen, reverse=True)
    assert minimum_detectable_ratio(0.0, 5) == 1.0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 100), st.floats(-1e3, 1e3))
def test_estimates_follow_a_change_of_unit(seed: int, factor: float, offset: float) -> None:
    series = np.random.default_rng(seed).lognormal(size=600)
    for estimate in (mean, lambda s: quantile(s, 0.9)):
        plain, moved = estimate(series), estimate(series * factor + offset)
        for one, other in ((plain.low, moved.low), (plain.value, moved.value), (plain.high, moved.high)):
            assert one is not None and other is not None
            assert other == pytest.approx(one * factor + offset, rel=1e-6, abs=1e-6 * (1 + abs(offset)))


def test_dependence_is_seen_and_its_absence_costs_nothing() -> None:
    assert inflation(np.repeat(numbers.normal(size=100), 10))[0] == pytest.approx(10, rel=0.5)
    independent = [numbers.lognormal(size=120) for _ in range(400)]
    assert sum(is_dependent(series) for series in independent) / 400 <= 0.08
    assert all(quantile(s, 0.5).n_effective == 120 for s in independent if not is_dependent(s))
    assert not is_dependent(np.ones(50)) and not is_dependent(np.array([1.0, 2.0]))


def test_a_dependent_series_must_be_worth_twice_what_independent_ones_need() -> None:
    series = np.repeat(numbers.normal(size=30), 4)
    found = quantile(series, 0.95)
    assert not found.bounded and "worth" in (found.reason or "") and "needs 144" in (found.reason or "")
