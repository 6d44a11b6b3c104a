"""A share of successes, with Wilson's interval.

Doesn't belong here: quantities that are not yes or no (means.py, quantiles.py).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.statistics.means import effective_size
from lab_pipelines.statistics.quantiles import MIN_DEPENDENT

if TYPE_CHECKING:
    pass

METHOD = "Wilson's interval"


def rate(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """The share of `successes` among `n` independent trials.

    Holds its confidence also near 0 and 1, where the normal interval collapses (Wilson 1927; Brown, Cai and DasGupta
    2001, Interval estimation for a binomial proportion).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if n == 0:
        return refused(None, 0, METHOD, "no trial")
    return _wilson(successes / n, n, float(n), confidence, METHOD)


def rate_in_order(outcomes: Series, *, confidence: float = CONFIDENCE) -> Estimate:
    """The share of true ones in a series in the order of time.

    Failures come in clumps, while a server restarts; so n is the effective number of trials, by the batch means of the
    series. Below `MIN_DEPENDENT` values their dependence can't be estimated, and they are taken as independent.
    """
    values = as_array(outcomes)
    n = len(values)
    if n == 0:
        return refused(None, 0, METHOD, "no trial")
    effective = effective_size(values, confidence=confidence) if n >= MIN_DEPENDENT else float(n)
    method = METHOD if n >= MIN_DEPENDENT else f"{METHOD}, trials taken as independent"
    return _wilson(float(values.mean()), n, effective, confidence, method)


def _wilson(share: float, n: int, effective: float, confidence: float, method: str) -> Estimate:
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    scale = 1 + z**2 / effective
    centre = (share + z**2 / (2 * effective)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return Estimate(share, max(centre - reach, 0.0), min(centre + reach, 1.0), n, effective, method)
