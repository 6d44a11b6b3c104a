"""Several questions asked of one lab: what keeps one chance hit from passing for a result.

Doesn't belong here: any single test.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], *, alpha: float) -> list[bool]:
    """Which hypotheses are rejected so that a false rejection among all of them has a probability of at most `alpha`.

    Assumes nothing of how the tests depend on each other (Holm 1979, A simple sequentially rejective multiple test
    procedure).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for place, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - place):
            break
        rejected[index] = True
    return rejected


def simultaneous(confidence: float, intervals: int) -> float:
    """The confidence of each of so many intervals at which all of them hold at once with `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(intervals, 1)
