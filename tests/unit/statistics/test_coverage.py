"""By simulation: an interval of 95 % holds the truth in 93 to 97 of a hundred samples, whatever the data are like.

Seeds are fixed, so that each test gives the same answer every time. 1,500 samples know a coverage to 0.6 points.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import norm

from lab_pipelines.statistics.bootstrap import block_bootstrap
from lab_pipelines.statistics.estimate import Estimate
from lab_pipelines.statistics.means import mean
from lab_pipelines.statistics.paired import minimum_detectable_ratio, paired_ratio, sign_flip_p
from lab_pipelines.statistics.quantiles import quantile
from lab_pipelines.statistics.rates import rate, rate_in_order
from lab_pipelines.statistics.steady import ALPHA, steadiness
from lab_pipelines.statistics.warmup import warm_up
from lab_pipelines.turns import turn_orders

SAMPLES = 1500
Generator = np.random.Generator
Draw = Callable[[Generator, int], np.ndarray]


def autoregressive(numbers: Generator, n: int, phi: float) -> np.ndarray:
    """A stationary series of standard normal values, each `phi` times the last one plus noise."""
    settle = 200
    noise = numbers.normal(0, math.sqrt(1 - phi**2), n + settle)
    return np.asarray(lfilter([1], [1, -phi], noise))[settle:]


WORLDS: dict[str, tuple[Draw, float, Callable[[float], float]]] = {
    "independent": (lambda r, n: r.normal(10, 2, n), 10.0, lambda q: 10 + 2 * float(norm.ppf(q))),
    "heavy tail": (lambda r, n: r.pareto(3, n) + 1, 1.5, lambda q: (1 - q) ** (-1 / 3)),
    "skewed": (lambda r, n: r.lognormal(0, 1, n), math.exp(0.5), lambda q: math.exp(float(norm.ppf(q)))),
    "autocorrelated": (lambda r, n: 10 + autoregressive(r, n, 0.5), 10.0, lambda q: 10 + float(norm.ppf(q))),
    "strongly autocorrelated": (lambda r, n: 10 + autoregressive(r, n, 0.8), 10.0, lambda q: 10 + float(norm.ppf(q))),
    "autocorrelated and skewed": (
        lambda r, n: np.exp(autoregressive(r, n, 0.5)),
        math.exp(0.5),
        lambda q: math.exp(float(norm.ppf(q))),
    ),
}
"""How to draw, the true mean, the true quantiles."""


def coverage(estimates: list[Estimate], truth: float) -> float:
    """Of the intervals that were given."""
    given = [(one.low, one.high) for one in estimates if one.low is not None and one.high is not None]
    assert len(given) > 0.9 * len(estimates), "most samples have an interval"
    return sum(low <= truth <= high for low, high in given) / len(given)


def drawn(world: str, n: int, estimate: Callable[[np.ndarray], Estimate], samples: int = SAMPLES) -> list[Estimate]:
    numbers = np.random.default_rng(20260302)
    draw = WORLDS[world][0]
    return [estimate(draw(numbers, n)) for _ in range(samples)]


@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_of_a_mean_covers_it(world: str) -> None:
    assert 0.93 <= coverage(drawn(world, 2000, mean), WORLDS[world][1]) <= 0.97


@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize("world", WORLDS)
def test_the_interval_of_a_quantile_covers_it(world: str, q: float) -> None:
    found = drawn(world, 2000, lambda series: quantile(series, q))
    assert 0.93 <= coverage(found, WORLDS[world][2](q)) <= 0.975, "ranks are whole numbers, so a little too many"


@pytest.mark.parametrize("world", ["independent", "heavy tail", "autocorrelated"])
def test_the_interval_of_a_p99_covers_it(world: str) -> None:
    found = drawn(world, 4000, lambda series: quantile(series, 0.99), samples=1000)
    assert 0.93 <= coverage(found, WORLDS[world][2](0.99)) <= 0.975


def test_dependence_that_is_ignored_makes_intervals_too_narrow() -> None:
    """That the test above can fail: the same quantiles, with values taken as independent."""
    found = drawn("strongly autocorrelated", 2000, lambda series: quantile(series, 0.5, in_order=False))
    assert coverage(found, WORLDS["strongly autocorrelated"][2](0.5)) < 0.7


@pytest.mark.parametrize(("n", "share"), [(100, 0.5), (300, 0.03), (1000, 0.01), (1000, 0.98)])
def test_wilson_s_interval_covers_a_rate(n: int, share: float) -> None:
    counts = np.random.default_rng(7).binomial(n, share, SAMPLES)
    assert 0.93 <= coverage([rate(int(count), n) for count in counts], share) <= 0.97


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8])
def test_the_interval_of_a_rate_of_clumped_failures_covers_it(phi: float) -> None:
    numbers, share = np.random.default_rng(11), 0.1
    limit = float(norm.ppf(1 - share))
    found = [rate_in_order(autoregressive(numbers, 2000, phi) < limit) for _ in range(SAMPLES)]
    assert 0.93 <= coverage(found, 1 - share) <= 0.97


@pytest.mark.parametrize("world", ["independent", "skewed", "autocorrelated"])
def test_the_bootstrap_covers_a_ratio_of_quantiles(world: str) -> None:
    _, _, at = WORLDS[world]

    def spread(samples: np.ndarray) -> np.ndarray:
        return np.quantile(samples, 0.75, axis=-1) - np.quantile(samples, 0.25, axis=-1)

    found = drawn(world, 1000, lambda series: block_bootstrap(series, spread, draws=299), samples=400)
    assert 0.92 <= coverage(found, at(0.75) - at(0.25)) <= 0.98, "400 samples know it to 1.1 points"


NOISE: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda numbers, n: numbers.normal(0, 0.05, n),
    "heavy tail": lambda numbers, n: 0.03 * numbers.standard_t(3, n),
    "some visits disturbed": lambda numbers, n: numbers.normal(0, 0.05, n) + 0.3 * (numbers.random(n) < 0.2),
}
"""Of one visit's logarithm; a disturbance falls on either variant."""
DRIFT: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "each turn its own": lambda numbers, n: np.repeat(numbers.normal(0, 0.3, n // 2), 2),
    "a level that wanders": lambda numbers, n: np.cumsum(numbers.normal(0, 0.05, n)),
    "a machine that throttles": lambda numbers, n: 0.02 * np.arange(n),
    "correlated": lambda numbers, n: autoregressive(numbers, n, 0.8) * 0.1,
}
"""Of the logarithm from visit to visit."""


def walked(numbers: np.random.Generator, turns: int, drift: str, noise: str, *, fixed_order: bool = False) -> Estimate:
    """The estimate of a run of so many turns whose first variant gives 1.1 times what the second does."""
    orders = [[0, 1]] * turns if fixed_order else turn_orders(2, turns)
    logs = DRIFT[drift](numbers, 2 * turns) + NOISE[noise](numbers, 2 * turns)
    visited = zip(orders, logs.reshape(-1, 2), strict=True)
    pairs = np.array([[visit[order.index(name)] for name in (0, 1)] for order, visit in visited])
    values = np.exp(pairs)
    return paired_ratio(1.1 * values[:, 0], values[:, 1])


@pytest.mark.parametrize("turns", [5, 12, 30])
@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("drift", DRIFT)
def test_the_interval_of_a_paired_ratio_covers_it(drift: str, noise: str, turns: int) -> None:
    numbers = np.random.default_rng(3)
    found = [walked(numbers, turns, drift, noise) for _ in range(SAMPLES)]
    # Five pairs are hardly ever without a disturbance, or never with two: the interval is then a little wide.
    assert 0.93 <= coverage(found, 1.1) <= (0.98 if turns == 5 else 0.97)


def test_in_an_order_that_never_changes_a_drift_passes_for_an_effect() -> None:
    """That the test above can fail: variants that are walked in the same order in every turn."""
    numbers = np.random.default_rng(3)
    found = [walked(numbers, 30, "a machine that throttles", "normal", fixed_order=True) for _ in range(400)]
    assert coverage(found, 1.1) < 0.9


def test_signs_turned_around_reject_a_true_null_as_often_as_they_say() -> None:
    numbers = np.random.default_rng(5)
    p_values = np.array([sign_flip_p(numbers.standard_t(2, 12)) for _ in range(800)])
    assert abs((p_values <= 0.05).mean() - 0.05) < 0.025


def test_the_smallest_detectable_ratio_is_found_as_often_as_it_says() -> None:
    spread, pairs = 0.1, 8
    effect = minimum_detectable_ratio(spread, pairs, power=0.8)
    numbers = np.random.default_rng(13)
    found = 0
    for _ in range(SAMPLES):
        estimate = paired_ratio(effect * numbers.lognormal(0, spread, pairs), np.ones(pairs))
        found += estimate.low is not None and (estimate.low > 1 or (estimate.high or 0) < 1)
    assert abs(found / SAMPLES - 0.8) < 0.04


# Steady state and warm-up


@pytest.mark.parametrize("world", WORLDS)
def test_a_steady_series_is_seldom_called_anything_else(world: str) -> None:
    numbers, draw = np.random.default_rng(17), WORLDS[world][0]
    other = sum(steadiness(draw(numbers, 2000)).state != "steady" for _ in range(600))
    assert other / 600 <= ALPHA + 0.03


def test_a_drift_and_a_shift_are_told_apart_and_measured() -> None:
    numbers = np.random.default_rng(19)
    drifts = [steadiness(10 + np.linspace(0, 3, 600) + numbers.normal(0, 1, 600)) for _ in range(100)]
    assert sum(one.state == "trend" for one in drifts) >= 90
    assert np.median([one.drift for one in drifts if one.drift is not None]) == pytest.approx(0.3 / 1.15, abs=0.05)
    steps = [steadiness(10 + np.repeat([0, 3], [350, 250]) + numbers.normal(0, 1, 600)) for _ in range(100)]
    shifted = [one for one in steps if one.state == "level_shift"]
    assert len(shifted) >= 85
    assert np.median([one.at for one in shifted if one.at is not None]) == pytest.approx(350, abs=30)


def test_a_change_within_the_tolerance_is_none_that_matters() -> None:
    series = 10 + np.linspace(0, 0.2, 600) + np.random.default_rng(23).normal(0, 0.02, 600)
    assert steadiness(series).state == "trend"
    assert steadiness(series, tolerance=0.05).state == "steady"


def test_the_warm_up_is_cut_where_it_ends() -> None:
    numbers = np.random.default_rng(29)
    cuts = []
    for _ in range(200):
        series = 10 + numbers.normal(0, 0.5, 600)
        series[:100] += np.linspace(5, 0, 100)
        cuts.append(warm_up(series).cut)
    assert np.median([cut for cut in cuts if cut is not None]) == pytest.approx(95, abs=30)
    assert sum(cut is None for cut in cuts) <= 10


def test_a_series_that_never_settles_has_no_cut() -> None:
    found = warm_up(np.linspace(0, 10, 400))
    assert found.cut is None and found.reason is not None and "not settled" in found.reason
