"""Where the warm-up of a series ends.

Doesn't belong here: whether what follows is a steady state (steady.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lab_pipelines.statistics.dependence import centred_ranks, inflation
from lab_pipelines.statistics.estimate import Series, as_array
from lab_pipelines.words import counted

BATCH = 5
"""MSER-5 looks at means of five values, which are smoother than the values themselves."""
MIN_BATCHES = 10
ALPHA = 0.01
"""The rule cuts somewhere in nearly every series; only a beginning that differs this clearly is one."""


@dataclass(frozen=True)
class WarmUp:
    """How many values to leave out at the beginning, and why so many. `cut` None: it can't be told."""

    cut: int | None
    reason: str


def warm_up(series: Series, *, tolerance: float = 0.0) -> WarmUp:
    """The cut that makes the mean rank of the rest most precise, if the beginning differs from the rest.

    For each cut d the variance of what is left over the square of its length; the smallest wins: MSER-5 (White, Cobb
    and Spratt 2000, A comparison of five steady-state truncation heuristics). It is taken on ranks, and confirmed by a
    rank sum test of the beginning against the rest, whose variance is inflated by the rest's dependence. Without either
    the rule would cut up to an early outlier, and what is left would be chosen for its calm: of a steady heavy-tailed
    series the p95 came out too low. A beginning whose median is within `tolerance` of the rest's is none that matters.
    A cut past the half means that the series had not settled: then there is none.
    """
    import numpy as np
    from scipy.special import ndtr

    values = as_array(series)
    batches = len(values) // BATCH
    if batches < MIN_BATCHES:
        return WarmUp(
            None, f"{counted(len(values), 'value')}; a warm-up is looked for in {BATCH * MIN_BATCHES} or more"
        )
    ranks = centred_ranks(values)
    means = ranks[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    # Sums over the rest from each cut on, all at once.
    left = np.arange(batches, 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    scores = np.maximum(squares - sums**2 / left, 0.0) / left.astype(float) ** 2
    # Of the last few the variance is that of almost nothing.
    best = int(np.argmin(scores[: batches - BATCH]))
    if best == 0:
        return WarmUp(0, "none: the beginning is like the rest")
    cut = best * BATCH
    first, rest = ranks[:cut], ranks[cut:]
    error = math.sqrt(float(ranks.var()) * max(inflation(rest)[0], 1.0) * (1 / len(first) + 1 / len(rest)))
    p = 2 * float(ndtr(-abs(float(first.mean() - rest.mean())) / error)) if error else 1.0
    if p > ALPHA:
        return WarmUp(0, f"none: the first {cut} values are not clearly unlike the rest (p = {p:.2g})")
    before, after = float(np.median(values[:cut])), float(np.median(values[cut:]))
    if abs(before - after) <= tolerance * abs(after):
        return WarmUp(
            0, f"none that matters: the median of the first {cut} values is within {tolerance:.0%} of the rest's"
        )
    if best > batches // 2:
        return WarmUp(None, "it had not settled by the half of the series")
    return WarmUp(cut, f"the first {cut} of {len(values)} values are unlike the rest (p = {p:.2g})")
