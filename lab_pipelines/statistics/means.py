"""The mean of a series whose values follow one another, such as a throughput slice by slice, with an interval.

Belongs here: batch means. Doesn't belong here: throwing the warm-up away (warmup.py), or asking whether there is a mean
to estimate at all (steady.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lab_pipelines.statistics.dependence import MIN_EFFECTIVE, inflation
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.words import counted

if TYPE_CHECKING:
    import numpy as np

BATCHES = 10
"""The least that is advised (Schmeiser 1982, Batch size effects in the analysis of simulation output: 10 to 30): the
fewer, the longer they are, and the less neighbours have in common."""
BATCH_LENGTHS = 4
"""Batches so many times the inflation long are nearly independent; of two and a half, 92 of 100 intervals hold."""

ROUNDING = 1e-12
"""Relative to the largest value: means that differ by less are equal."""


def mean(series: Series, *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of a stationary series, by ten batch means and Student's t.

    Where the series depends on itself for longer than batches can be told apart (`BATCH_LENGTHS`), the interval is
    t on the effective size instead, and wider; of fewer than `MIN_EFFECTIVE` values' worth there is none. Assumes a
    steady state, and means of batches that are roughly normal. Batches without any spread say nothing of how precise
    their mean is, and give no interval. Source: Law, Simulation Modeling and Analysis, 9.5.3.
    """
    import numpy as np
    from scipy.special import stdtrit

    values = as_array(series)
    n = len(values)
    value = float(values.mean()) if n else None
    least = BATCHES * BATCH_LENGTHS
    if value is None or n < least:
        return refused(value, n, "batch means", f"{counted(n, 'value')}; an interval of a mean needs {least}")
    tail, (factor, lags) = (1 + confidence) / 2, inflation(values)
    if n // BATCHES >= BATCH_LENGTHS * factor:
        means = batch_means(values, BATCHES)
        size, freedom, deviation = float(BATCHES), BATCHES - 1.0, float(means.std(ddof=1))
        method = f"{BATCHES} batch means, t interval"
    else:
        size, freedom, deviation = n / factor, n / lags - 1, float(values.std(ddof=1))
        method = "t interval on the effective size"
        if size < MIN_EFFECTIVE:
            return refused(
                value, n, method, f"{n} values depend on each other too much: they are worth {max(size, 1):.0f}"
            )
    # Of equal numbers the deviation may be a rounding's, which is an interval of nothing.
    if deviation <= ROUNDING * float(np.abs(values).max()):
        return refused(value, n, method, f"all {BATCHES} batches have the same mean, as repeats of one draw do")
    reach = float(stdtrit(freedom, tail)) * deviation / math.sqrt(size)
    return Estimate(value, value - reach, value + reach, n, n / factor, method)


def batch_means(values: np.ndarray, batches: int) -> np.ndarray:
    """Means of `batches` equal parts; what is left over at the beginning, nearest to the warm-up, is dropped."""
    size = len(values) // batches
    return values[len(values) - size * batches :].reshape(batches, size).mean(axis=1)
