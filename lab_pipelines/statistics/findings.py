"""Verdicts on a lab's claims: confirmed, refuted, or inconclusive when the interval holds both answers.

Belongs here: the test behind each kind of finding. Doesn't belong here: where its samples come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["confirmed", "refuted", "inconclusive"]

MIN_BATCHES = 8
"""Fewer batch means than this give a t interval too wide and too sensitive to one batch to decide anything."""


@dataclass(frozen=True)
class Judgement:
    """A verdict with its evidence. `effect` and the 95 % interval are None when the samples allow none."""

    verdict: Verdict
    effect: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    reason: str


def batch_means(arrivals: Sequence[tuple[float, float]], *, start: float, end: float, batches: int) -> list[float]:
    """Rate per second in each of `batches` equal parts of [start, end), from (time in seconds, amount) pairs.

    Batches longer than the correlation time make nearly independent means of a dependent series
    (Law and Kelton, Simulation Modeling and Analysis, method of batch means).
    """
    width = (end - start) / batches
    sums = [0.0] * batches
    for at, amount in arrivals:
        index = math.floor((at - start) / width)
        if 0 <= index < batches:
            sums[index] += amount
    return [total / width for total in sums]


def ratio(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    comparison: Literal["above", "below"],
    threshold: float,
) -> Judgement:
    """Is mean(numerator) / mean(denominator) above or below `threshold`?

    Takes independent batch means of two stages. The interval is the delta method's on the logarithm of the ratio, with
    Welch's degrees of freedom; it assumes means roughly normal and positive.
    """
    method = "ratio of batch means, 95 % interval by the delta method on its logarithm (Welch)"
    n = min(len(numerator), len(denominator))

    def undecided(reason: str) -> Judgement:
        return Judgement("inconclusive", None, None, None, n, method, reason)

    if n < MIN_BATCHES:
        return undecided(f"{n} batches, and fewer than {MIN_BATCHES} decide nothing")
    above, below = _mean_and_variance_of_mean(numerator), _mean_and_variance_of_mean(denominator)
    if above[0] <= 0 or below[0] <= 0:
        return undecided("a stage without throughput has no ratio")

    from scipy.stats import t

    parts = (above[1] / above[0] ** 2, below[1] / below[0] ** 2)
    variance = sum(parts)
    effect = above[0] / below[0]
    if variance == 0:
        low = high = effect
    else:
        freedom = variance**2 / (parts[0] ** 2 / (len(numerator) - 1) + parts[1] ** 2 / (len(denominator) - 1))
        reach = math.exp(float(t.ppf(0.975, freedom)) * math.sqrt(variance))
        low, high = effect / reach, effect * reach
    holds = {"above": (low > threshold, high <= threshold), "below": (high < threshold, low >= threshold)}[comparison]
    interval = f"[{low:.4g}, {high:.4g}]"  # rounded to three it may seem to touch what it clears
    if holds[0]:
        return Judgement("confirmed", effect, low, high, n, method, f"{interval} is {comparison} {threshold:g}")
    if holds[1]:
        return Judgement("refuted", effect, low, high, n, method, f"{interval} is not {comparison} {threshold:g}")
    return Judgement("inconclusive", effect, low, high, n, method, f"{interval} contains {threshold:g}")


def _mean_and_variance_of_mean(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, variance / len(values)
