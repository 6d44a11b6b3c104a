"""Is a series in a steady state? "No" is an answer, and so is "it can't be told".

Doesn't belong here: what its mean is (means.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lab_pipelines.statistics.dependence import centred_ranks, inflation
from lab_pipelines.statistics.estimate import Series, as_array
from lab_pipelines.statistics.means import batch_means
from lab_pipelines.statistics.multiple import holm
from lab_pipelines.words import counted

if TYPE_CHECKING:
    import numpy as np

State = Literal["steady", "trend", "level_shift", "unknown"]
ALPHA = 0.05
"""Of both tests together, by Holm: one steady series in twenty is called otherwise."""
POINTS = 30
"""Batch means that the tests look at: fewer tell little, and more are dependent."""
MIN_POINTS = 12
POINT_LENGTHS = 2
"""Points so many times the inflation long: of shorter ones, dependence looks like a trend."""
MIN_SIDE = 6
"""Points beside a shift in which a trend could be seen."""


@dataclass(frozen=True)
class Steadiness:
    """`drift` is the change from first to last by the trend, or over the shift, relative to the median."""

    state: State
    drift: float | None
    at: int | None
    """Of a level shift, the index of the first value after it."""
    reason: str


def steadiness(series: Series, *, tolerance: float = 0.0) -> Steadiness:
    """Tests the series for a monotone trend and for a shift of its level.

    The trend by Mann and Kendall's test with Hamed and Rao's correction for autocorrelation (1998), its size by Sen's
    slope; the shift by Pettitt's test (1979). Both look at means of so many values that they hardly depend on each
    other, and where there are too few of those, nothing is told.
    A change that is found, but no larger than `tolerance` relative to the median, is none that matters: steady.
    Assumes nothing of the distribution. A slow oscillation longer than the series looks like a trend, and is told so.
    """
    import numpy as np

    values = as_array(series)
    n = len(values)
    if n < MIN_POINTS:
        return Steadiness("unknown", None, None, f"{counted(n, 'value')}; a steady state is told from {MIN_POINTS} on")
    points = min(POINTS, int(n / (POINT_LENGTHS * _inflation(values))), n)
    if points < MIN_POINTS:
        reason = f"{n} values depend on each other too much: they are worth {points} apart, and {MIN_POINTS} are needed"
        return Steadiness("unknown", None, None, reason)
    means = batch_means(values, points)
    level = float(np.median(means))
    trend_p, slope = _mann_kendall(means)
    shift_p, at = _pettitt(means)
    trends, shifts = holm([trend_p, shift_p], alpha=ALPHA)
    if not trends and not shifts:
        return Steadiness("steady", 0.0, None, f"no trend (p = {trend_p:.2g}), no shift (p = {shift_p:.2g})")
    # A shift explains a trend when neither of its sides has one of its own.
    step = float(np.median(means[at:]) - np.median(means[:at]))
    sides = [side for side in (means[:at], means[at:]) if len(side) >= MIN_SIDE]
    is_shift = shifts and (not trends or all(_mann_kendall(side)[0] > ALPHA for side in sides))
    change = step if is_shift else slope * (points - 1)
    drift = change / abs(level) if level else math.copysign(math.inf, change)
    if abs(drift) <= tolerance:
        return Steadiness("steady", drift, None, f"a change of {round(drift, 3) + 0:+.1%} is within {tolerance:.1%}")
    if is_shift:
        first = len(values) - (points - at) * (len(values) // points)
        return Steadiness("level_shift", drift, first, f"its level shifts by {drift:+.1%} (p = {shift_p:.2g})")
    return Steadiness("trend", drift, None, f"it drifts by {drift:+.1%} (p = {trend_p:.2g})")


def _inflation(values: np.ndarray) -> float:
    """Of what a straight line and the likeliest shift leave, whichever leaves less: a change is no dependence."""
    import numpy as np

    at = _pettitt(values)[1]
    shifted = np.concatenate([values[:at] - values[:at].mean(), values[at:] - values[at:].mean()])
    time = np.arange(len(values)) - (len(values) - 1) / 2
    straight = values - values.mean() - time * float(time @ values) / float(time @ time)
    return min(inflation(shifted)[0], inflation(straight)[0])


def _mann_kendall(values: np.ndarray) -> tuple[float, float]:
    """The two-sided p value and Sen's slope per value."""
    import numpy as np
    from scipy.special import ndtr, ndtri

    n = len(values)
    later = np.triu_indices(n, k=1)
    rises = values[later[1]] - values[later[0]]
    slopes = rises / (later[1] - later[0])
    score = float(np.sign(rises).sum())
    slope = float(np.median(slopes))
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    # Hamed and Rao: significant correlations of the ranks, once the trend is taken out, inflate the variance.
    centred = centred_ranks(values - slope * np.arange(n))
    spread = float((centred**2).sum())
    inflated = 1.0
    if spread:
        limit = float(ndtri(0.975)) / math.sqrt(n)
        for lag in range(1, n - 2):
            correlation = float((centred[lag:] * centred[:-lag]).sum()) / spread
            if abs(correlation) > limit:
                inflated += 2 / (n * (n - 1) * (n - 2)) * (n - lag) * (n - lag - 1) * (n - lag - 2) * correlation
    variance *= max(inflated, 1.0)
    if variance <= 0 or score == 0:
        return 1.0, slope
    z = (abs(score) - 1) / math.sqrt(variance)
    return 2 * float(ndtr(-z)), slope


def _pettitt(values: np.ndarray) -> tuple[float, int]:
    """The p value, and the index of the first value after the likeliest shift."""
    import numpy as np

    n = len(values)
    sums = 2 * np.cumsum(centred_ranks(values))
    at = int(np.argmax(np.abs(sums[:-1]))) + 1
    height = float(abs(sums[at - 1]))
    return min(1.0, 2 * math.exp(-6 * height**2 / (n**3 + n**2))), at
