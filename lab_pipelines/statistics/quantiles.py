"""A quantile of a sample, with an interval that assumes nothing of its distribution.

Belongs here: order statistics, also for values that follow one another. Doesn't belong here: ratios of two quantiles
(comparisons.py).
"""

from __future__ import annotations

import math

from lab_pipelines.statistics.dependence import MIN_EFFECTIVE, effective_size
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.words import counted


def quantile(series: Series, q: float, *, confidence: float = CONFIDENCE) -> Estimate:
    """The quantile of a series in the order of time, between two of its order statistics.

    The number of values below the true quantile is binomial, so that ranks bound it whatever the distribution (David
    and Nagaraja, Order Statistics, section 7.1). The binomial's n is the effective one: where the series depends on
    itself, the dependence of "is below the quantile" (dependence.py). Refuses when the sample is too small for any two
    ranks: independent values need 72 for a p95 and 368 for a p99 at 95 %, dependent ones must be worth twice that.
    """
    import numpy as np

    values = as_array(series)
    n, method = len(values), f"order statistics around the p{q * 100:g}"
    if not n:
        return refused(None, 0, method, "no value")
    ordered = np.sort(values)
    value = float(np.interp(q * (n - 1), np.arange(n), ordered))
    effective = effective_size((values <= value).astype(float), series=values, confidence=confidence)
    needed = float(needed_for(q, confidence=confidence))
    if effective < n:  # whoever is only just large enough may owe it to too small an estimate of the dependence
        needed = max(2 * needed, MIN_EFFECTIVE)
    if effective < needed:
        worth = f", worth {counted(max(round(effective), 1), 'independent one')}" if effective < n else ""
        return refused(
            value, n, method, f"{counted(n, 'value')}{worth}; an interval of the p{q * 100:g} needs {needed:.0f}"
        )
    low, high = _ranks(effective, q, confidence)
    # Ranks among the effective values, spread over the real ones.
    first, last = max(math.floor(low * n / effective), 1), min(math.ceil(high * n / effective), n)
    return Estimate(value, float(ordered[first - 1]), float(ordered[last - 1]), n, effective, method)


def needed_for(q: float, *, confidence: float = CONFIDENCE) -> int:
    """The smallest sample of independent values whose extremes bound the quantile with equal tails.

    Each side may miss with half of what `confidence` leaves: q^n and (1 - q)^n at most that.
    """
    tail = (1 - confidence) / 2
    return max(math.ceil(math.log(tail) / math.log(side)) for side in (q, 1 - q))


def _ranks(n: float, q: float, confidence: float) -> tuple[float, float]:
    """The ranks (from 1, real numbers) whose probabilities to lie below and above the quantile leave equal tails.

    The k-th smallest of n uniform values lies above q with the binomial probability of at most k - 1 values below it.
    The distribution's continuation takes a real n, as an effective size is.
    """
    from scipy.special import bdtrik

    tail = (1 - confidence) / 2
    return float(bdtrik(tail, n, q)) + 1, float(bdtrik(1 - tail, n, q)) + 1
