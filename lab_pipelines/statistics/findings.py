"""Verdicts on a lab's claims: confirmed, refuted, or inconclusive when the rows hold both answers.

Belongs here: what a verdict is, and the test behind claims on values that are all there are and have no interval.
Doesn't belong here: claims on estimates (comparisons.py), where the values come from (assets/findings.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["confirmed", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Judgement:
    """A verdict with its evidence. `effect` and the interval, whose confidence `method` says, are None where the values
    allow none."""

    verdict: Verdict
    effect: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    reason: str


def holds(low: float, high: float, comparison: Literal["above", "below"], threshold: float) -> bool | None:
    """Whether the whole interval lies above or below the threshold; None where it holds both answers."""
    if comparison == "above":
        return True if low > threshold else False if high <= threshold else None
    return True if high < threshold else False if low >= threshold else None


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
