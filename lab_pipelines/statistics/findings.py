"""Verdicts on a lab's claims: confirmed, refuted, or inconclusive when the interval holds both answers.

Belongs here: the test behind each kind of finding. Doesn't belong here: where its samples come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab_pipelines.statistics import quantiles
from lab_pipelines.statistics.estimate import CONFIDENCE
from lab_pipelines.statistics.multiple import simultaneous

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
    confidence: float = CONFIDENCE,
) -> Judgement:
    """Is mean(numerator) / mean(denominator) above or below `threshold`?

    Takes independent batch means of two stages. The interval is the delta method's on the logarithm of the ratio, with
    Welch's degrees of freedom; it assumes means roughly normal and positive.
    """
    method = f"ratio of batch means, {confidence * 100:.4g} % interval by the delta method on its logarithm (Welch)"
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
        reach = math.exp(float(t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(variance))
        low, high = effect / reach, effect * reach
    return _against(effect, low, high, n, method, comparison, threshold)


def _against(
    effect: float,
    low: float,
    high: float,
    n: int,
    method: str,
    comparison: Literal["above", "below"],
    threshold: float,
) -> Judgement:
    """The verdict of an interval: it lies on one side of the threshold, or holds it."""
    holds = {"above": (low > threshold, high <= threshold), "below": (high < threshold, low >= threshold)}[comparison]
    interval = f"[{low:.4g}, {high:.4g}]"  # rounded to three it may seem to touch what it clears
    if holds[0]:
        return Judgement("confirmed", effect, low, high, n, method, f"{interval} is {comparison} {threshold:g}")
    if holds[1]:
        return Judgement("refuted", effect, low, high, n, method, f"{interval} is not {comparison} {threshold:g}")
    return Judgement("inconclusive", effect, low, high, n, method, f"{interval} contains {threshold:g}")


def quantile_ratio(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    quantile: float,
    comparison: Literal["above", "below"],
    threshold: float,
    confidence: float = CONFIDENCE,
) -> Judgement:
    """Is the quantile of one sample over that of another above or below `threshold`?

    Each quantile has a distribution-free interval between two order statistics, at 97.5 % so that both hold at once
    with the `confidence` of 95 % (Bonferroni); the ratio's interval is made of their ends. It is wide, and takes the
    requests of a stage as independent, which requests that share a batch are not quite.
    """
    each = simultaneous(confidence, 2)
    interval = f"{confidence * 100:.4g} % interval from the order statistics of both samples (Bonferroni)"
    method = f"ratio of the p{quantile * 100:g}, {interval}"
    n = min(len(numerator), len(denominator))
    above, below = (
        quantiles.quantile(side, quantile, confidence=each, in_order=False) for side in (numerator, denominator)
    )
    if above.low is None or above.high is None or below.low is None or below.high is None:
        needed = quantiles.needed_for(quantile, confidence=each)
        reason = f"{n} requests; an interval for the p{quantile * 100:g} needs {needed} on each side"
        return Judgement("inconclusive", None, None, None, n, method, reason)
    if below.low <= 0:
        return Judgement("inconclusive", None, None, None, n, method, "the denominator's interval reaches zero")
    assert above.value is not None and below.value is not None
    effect = above.value / below.value
    return _against(effect, above.low / below.high, above.high / below.low, n, method, comparison, threshold)


def plain_ratio(
    numerator: float | None, denominator: float | None, *, comparison: Literal["above", "below"], threshold: float
) -> Judgement:
    """Is one number over another above or below `threshold`? None is a gap. There is no interval: see `bound`."""
    method = "one number over the other"
    if numerator is None or denominator is None:
        return _plain("inconclusive", None, 0, method, "one of the two is a gap")
    if denominator == 0:
        return _plain("inconclusive", None, 1, method, "a denominator of zero has no ratio")
    effect = numerator / denominator
    holds = effect > threshold if comparison == "above" else effect < threshold
    reason = (
        f"{numerator:.4g} over {denominator:.4g} is {effect:.4g}: {'' if holds else 'not '}{comparison} {threshold:g}"
    )
    return _plain("confirmed" if holds else "refuted", effect, 1, method, reason)


def bound(values: Sequence[float | None], *, comparison: Literal["above", "below"], threshold: float) -> Judgement:
    """Does every value lie above or below `threshold`? None is a gap. `effect` is the worst value.

    The values are all there are, one per stage or one for the run, and not a sample of more. So there is no interval,
    and what a further run would give is not claimed.
    """
    method = "every value against the threshold"
    known = [value for value in values if value is not None]
    n = len(known)
    if not known:
        return _plain("inconclusive", None, 0, method, "the measure has no value")
    worst = min(known) if comparison == "above" else max(known)
    shown = f"{worst:.4g}" if n == 1 else f"{worst:.4g}, the worst of {n} values,"
    if not (worst > threshold if comparison == "above" else worst < threshold):
        return _plain("refuted", worst, n, method, f"{shown} is not {comparison} {threshold:g}")
    if n < len(values):
        return _plain("inconclusive", worst, n, method, f"{len(values) - n} of {len(values)} values are gaps")
    return _plain("confirmed", worst, n, method, f"{shown} is {comparison} {threshold:g}")


def agreement(pairs: Sequence[tuple[float | None, float | None]], *, tolerance: float) -> Judgement:
    """Do both measures of each pair (value, reference) differ by at most `tolerance`, relative to the reference?

    `effect` is the largest relative difference. As with `bound`, the pairs are all there are.
    """
    method = "largest relative difference of the pairs"
    known = [(value, of) for value, of in pairs if value is not None and of is not None]
    n = len(known)
    if not known:
        return _plain("inconclusive", None, 0, method, "no stage has both measures")
    if any(of == 0 for _, of in known):
        return _plain("inconclusive", None, n, method, "a reference of zero has no relative difference")
    worst = max(abs(value - of) / abs(of) for value, of in known)
    if worst > tolerance:
        return _plain("refuted", worst, n, method, f"they differ by up to {worst:.2%}, over {tolerance:.2%}")
    if n < len(pairs):
        return _plain("inconclusive", worst, n, method, f"{len(pairs) - n} of {len(pairs)} pairs have a gap")
    return _plain("confirmed", worst, n, method, f"they differ by at most {worst:.2%}, within {tolerance:.2%}")


def outcomes(ended: Mapping[str, str], wanted: Sequence[str]) -> Judgement:
    """Did every wanted step end as its spec expects? `ended` has each step's outcome by name; `effect` is the share."""
    method = "each step's outcome against the one its spec expects"
    failed = [name for name in wanted if ended.get(name) == "failed"]
    absent = [name for name in wanted if name not in ended]
    n = len(wanted) - len(absent)
    share = 1 - len(failed) / n if n else None
    if failed:
        return _plain("refuted", share, n, method, f"not as expected: {', '.join(failed)}")
    if absent:
        return _plain("inconclusive", share, n, method, f"not done: {', '.join(absent)}")
    return _plain("confirmed", share, n, method, f"all {n} steps ended as expected")


def _plain(verdict: Verdict, effect: float | None, n: int, method: str, reason: str) -> Judgement:
    """A judgement on values that have no interval."""
    return Judgement(verdict, effect, None, None, n, method, reason)


def _mean_and_variance_of_mean(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, variance / len(values)
