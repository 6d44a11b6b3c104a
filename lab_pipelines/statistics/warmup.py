"""Where the warm-up of a series ends.

Doesn't belong here: whether what follows is a steady state (steady.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab_pipelines.statistics.estimate import Series, as_array

if TYPE_CHECKING:
    pass

BATCH = 5
"""MSER-5 looks at means of five values, which are smoother than the values themselves."""
MIN_BATCHES = 10


@dataclass(frozen=True)
class WarmUp:
    """How many values to leave out at the beginning. `cut` None: no cut is found, and `reason` says why."""

    cut: int | None
    reason: str | None


def warm_up(series: Series) -> WarmUp:
    """The cut that makes the mean of the rest most precise: the marginal standard error rule, MSER-5.

    For each cut d the rest's variance over the square of its length; the smallest wins (White, Cobb and Spratt 2000, A
    comparison of five steady-state truncation heuristics). A minimum in the second half means that the series had not
    yet settled: then there is no cut, since what is left would be chosen for its calm.
    """
    import numpy as np

    values = as_array(series)
    batches = len(values) // BATCH
    if batches < MIN_BATCHES:
        return WarmUp(None, f"{len(values)} values; a warm-up is looked for in {BATCH * MIN_BATCHES} or more")
    means = values[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    # Sums over the rest from each cut on, all at once.
    left = np.arange(batches, 0, -1)
    sums, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    scores = np.maximum(squares - sums**2 / left, 0.0) / left.astype(float) ** 2
    # Of the last few the variance is that of almost nothing.
    best = int(np.argmin(scores[: batches - BATCH]))
    if best > batches // 2:
        return WarmUp(None, "it had not settled by the half of the series")
    return WarmUp(best * BATCH, None)
