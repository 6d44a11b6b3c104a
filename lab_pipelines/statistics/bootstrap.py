"""Any statistic of a dependent series, with an interval by drawing blocks of it again.

For what has no interval of its own: a ratio of sums, a difference of quantiles. Doesn't belong here: means and
quantiles, whose own intervals need fewer assumptions (means.py, quantiles.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.statistics.means import inflation

if TYPE_CHECKING:
    import numpy as np

Statistic = Callable[["np.ndarray"], "np.ndarray"]
"""From an array whose last axis is the sample to the statistic of each sample."""

MIN_BLOCKS = 20
INDEPENDENT = 1.5
"""Up to this inflation, which independent series reach by chance, blocks are single values."""


def block_bootstrap(
    series: Series,
    statistic: Statistic,
    *,
    confidence: float = CONFIDENCE,
    draws: int = 999,
    seed: int = 0,
) -> Estimate:
    """The statistic of a stationary series with a t interval from the block bootstrap's standard error.

    Blocks of c n^(1/3) values, c the series' inflation, are drawn with replacement and wrap around its end
    (Politis and Romano 1992, circular blocks; Hall, Horowitz and Jing 1995 for the rate). Assumes a steady state, and a
    statistic that is roughly normal and changes smoothly with the sample: not an extreme. Refuses fewer than
    `MIN_BLOCKS` blocks.
    """
    import numpy as np
    from scipy.stats import t

    values = as_array(series)
    n, method = len(values), "circular block bootstrap"
    if n < MIN_BLOCKS:
        return refused(None, n, method, f"{n} values; blocks of one need {MIN_BLOCKS}")
    factor = inflation(values)
    size = max(1, math.ceil(factor * n ** (1 / 3))) if factor > INDEPENDENT else 1
    blocks = math.ceil(n / size)
    value = float(statistic(values[None, :])[0])
    if blocks < MIN_BLOCKS:
        return refused(value, n, method, f"dependence needs blocks of {size}; {n} values have {blocks} of them")
    starts = np.random.default_rng(seed).integers(0, n, size=(draws, blocks))
    index = (starts[:, :, None] + np.arange(size)).reshape(draws, blocks * size)[:, :n] % n
    error = float(statistic(values[index]).std(ddof=1))
    reach = error * float(t.ppf((1 + confidence) / 2, blocks - 1))
    return Estimate(value, value - reach, value + reach, n, n / factor, f"{method}, blocks of {size}")
