"""A quantile of a sample, with an interval that assumes nothing of its distribution.

Belongs here: order statistics, also for values that follow one another. Doesn't belong here: ratios of two quantiles
(findings.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.statistics.means import effective_size

if TYPE_CHECKING:
    import numpy as np

MIN_DEPENDENT = 500
"""Values from which their dependence can be estimated; fewer are taken as independent, and the method says so."""
MIN_SPELLS = 100
"""Of fewer independent values' worth the dependence itself is known too badly to correct for it."""


def quantile(series: Series, q: float, *, confidence: float = CONFIDENCE, in_order: bool = True) -> Estimate:
    """The quantile between two of the sample's order statistics.

    The number of values below the true quantile is binomial, so that ranks bound it whatever the distribution (David
    and Nagaraja, Order Statistics, section 7.1). For a series `in_order` of time the binomial's n is the effective one:
    the dependence of "is below the quantile" is estimated by batch means. Refuses when the sample is too small for any
    two ranks: independent values need 72 for a p95 and 368 for a p99 at 95 %.
    """
    values = as_array(series)
    n, method = len(values), f"order statistics around the p{q * 100:g}"
    if not in_order or n < MIN_DEPENDENT:
        method += ", values taken as independent"
    if not n:
        return refused(None, 0, method, "no value")
    ordered = _sorted(values)
    value = _interpolated(ordered, q)
    below = (values <= value).astype(float)
    effective = effective_size(below, confidence=confidence) if in_order and n >= MIN_DEPENDENT else float(n)
    if effective < min(n, MIN_SPELLS):
        return refused(value, n, method, f"{n} values depend on each other too much: they are worth {effective:.0f}")
    needed = needed_for(q, confidence=confidence)
    if effective < n:  # whoever is only just large enough may owe it to too small an estimate of the dependence
        needed *= 2
    if effective < needed:
        worth = f", worth {effective:.0f} independent ones" if effective < n else ""
        return refused(value, n, method, f"{n} values{worth}; an interval of the p{q * 100:g} needs {needed}")
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

    The k-th smallest of n uniform values is Beta(k, n + 1 - k): low is the k at which it exceeds q with half of the
    rest, high the one at which it stays below. The Beta distribution takes real n, as an effective size is.
    """
    from scipy.optimize import root_scalar
    from scipy.special import betainc

    tail = (1 - confidence) / 2

    def below(k: float) -> float:
        """Probability that the k-th smallest lies at or below the quantile."""
        return float(betainc(k, n + 1 - k, q))

    low, high = (
        float(root_scalar(lambda k, wanted=wanted: below(k) - wanted, bracket=(1e-9, n + 1 - 1e-9)).root)
        for wanted in (1 - tail, tail)
    )
    return low, high


def _sorted(values: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.sort(values)


def _interpolated(ordered: np.ndarray, q: float) -> float:
    import numpy as np

    return float(np.interp(q * (len(ordered) - 1), np.arange(len(ordered)), ordered))
