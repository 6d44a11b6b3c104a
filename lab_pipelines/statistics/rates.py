"""A share of successes, with Wilson's interval.

Doesn't belong here: quantities that are not yes or no (means.py, quantiles.py).
"""

from __future__ import annotations

import math

from lab_pipelines.statistics.dependence import MIN_EFFECTIVE, centred_ranks, effective_size
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused

MIN_CLUMPS = 5.0
"""Of fewer clumps of failures, or of successes, how long they are is known too badly."""
METHOD = "Wilson's interval"


def rate(outcomes: Series, *, told_from: Series = (), confidence: float = CONFIDENCE) -> Estimate:
    """The share of true ones in a series in the order of time.

    Outcomes that are all alike don't show how they depend on each other. Where they were told from other values, as
    "in time" is from a latency, the dependence of those counts (`told_from`, in the order of time; of some of the
    outcomes will do): without it, a queue that by chance never grew in one stage passed for one that never grows.

    Holds its confidence also near 0 and 1, where the normal interval collapses (Wilson 1927; Brown, Cai and DasGupta
    2001, Interval estimation for a binomial proportion). Failures come in clumps, while a server restarts: then the
    number of trials is the effective one (dependence.py), and too few for that give no interval.
    """
    values = as_array(outcomes)
    n = len(values)
    if n == 0:
        return refused(None, 0, METHOD, "no trial")
    effective = effective_size(values, series=values, confidence=confidence)
    rarer = min(float(values.mean()), 1 - float(values.mean()))
    behind = as_array(told_from)
    if rarer == 0 and len(behind):
        worth = effective_size(centred_ranks(behind), series=behind, confidence=confidence)
        effective = n * worth / len(behind)
    if effective < n and (effective < MIN_EFFECTIVE or 0 < effective * rarer < MIN_CLUMPS):
        reason = f"{n} outcomes depend on each other too much: they are worth {max(effective, 1):.0f}"
        return refused(float(values.mean()), n, METHOD, reason)
    return _wilson(float(values.mean()), n, effective, confidence)


def _wilson(share: float, n: int, effective: float, confidence: float) -> Estimate:
    from scipy.special import ndtri

    z = float(ndtri((1 + confidence) / 2))
    scale = 1 + z**2 / effective
    centre = (share + z**2 / (2 * effective)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    # Of a share of 0 or 1 rounding would leave the share itself outside.
    return Estimate(
        share, min(max(centre - reach, 0.0), share), max(min(centre + reach, 1.0), share), n, effective, METHOD
    )
