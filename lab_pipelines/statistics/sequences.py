"""Claims about several stages or variants at once: that a quantity rises, that there is a cliff, that an order holds.

Belongs here: the verdict of a row of neighbouring comparisons. Doesn't belong here: one comparison (comparisons.py).

Each comparison's interval must hold simultaneously with the others, or a row of ten would find a rise or a fall by
chance in two of five labs: give them `multiple.simultaneous` confidence. It is the `confidence` of these functions,
which tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_pipelines.statistics.comparisons import Comparison
from lab_pipelines.statistics.findings import Judgement, Verdict


@dataclass(frozen=True)
class Step:
    """From one stage or variant to the next: the ratio of the later one's value to the earlier one's."""

    name: str
    """Such as `8 → 16 users`."""
    ratio: Judgement
    """Judged against the same threshold: inconclusive also where a stage that isn't steady could undo it."""


def every_step(steps: Sequence[Step], *, comparison: Comparison, threshold: float, confidence: float) -> Judgement:
    """Is the ratio of every step above or below `threshold`? `effect` is the worst step's ratio, with its interval.

    Confirmed when every interval lies on the right side; refuted as soon as one lies wholly on the other.
    """
    method = f"every neighbouring ratio, {_at_once(confidence)}"
    known = [step for step in steps if _bounded(step.ratio)]
    n = min((step.ratio.n for step in steps), default=0)
    if not known:
        return Judgement("inconclusive", None, None, None, n, method, _why_none(steps))
    worst = min(known, key=lambda step: _short_of(step.ratio, comparison, threshold))
    against = [step for step in known if _side(step.ratio, comparison) == _opposite(comparison)]
    open_ = [step for step in steps if not _bounded(step.ratio) or _side(step.ratio, comparison) is None]
    if against:
        worst = min(against, key=lambda step: _short_of(step.ratio, comparison, threshold))
        return _told(worst, "refuted", n, method, f"{_said(worst)} is not {comparison} {threshold:g}")
    if open_:
        names = ", ".join(step.name for step in open_)
        return _told(
            worst, "inconclusive", n, method, f"undecided against {threshold:g}: {names}; {_gap(open_) or _said(worst)}"
        )
    told = _said(worst) if len(steps) == 1 else f"all {len(steps)} steps; the least clear is {_said(worst)}"
    return _told(worst, "confirmed", n, method, told)


def cliff(steps: Sequence[Step], at: int, *, comparison: Comparison, threshold: float, confidence: float) -> Judgement:
    """Is step `at` the only one whose ratio is above or below `threshold`? `effect` is that step's ratio.

    Refuted when that step has no cliff, or another one has.
    """
    method = f"the ratio of one step against every other's, {_at_once(confidence)}"
    edge, others = steps[at], [step for index, step in enumerate(steps) if index != at]
    n = min(step.ratio.n for step in steps)
    if not _bounded(edge.ratio):
        return Judgement("inconclusive", None, None, None, n, method, f"{edge.name}: {edge.ratio.reason}")
    side = _side(edge.ratio, comparison)
    if side == _opposite(comparison):
        return _told(edge, "refuted", n, method, f"{_said(edge)} is not {comparison} {threshold:g}")
    elsewhere = [step for step in others if _bounded(step.ratio) and _side(step.ratio, comparison) == comparison]
    if elsewhere:
        return _told(edge, "refuted", n, method, f"it is not the only one: {_said(elsewhere[0])}")
    open_ = [step for step in others if not _bounded(step.ratio) or _side(step.ratio, comparison) is None]
    if side is None or open_:
        names = ", ".join(step.name for step in ([edge] if side is None else []) + open_)
        reason = f"undecided against {threshold:g}: {names}; {_gap(open_) or _said(edge)}"
        return _told(edge, "inconclusive", n, method, reason)
    return _told(edge, "confirmed", n, method, f"{_said(edge)}, and no other step is {comparison} {threshold:g}")


def _at_once(confidence: float) -> str:
    return f"intervals of {confidence * 100:.4g} % each, which hold at once (Bonferroni)"


def _bounded(judged: Judgement) -> bool:
    return judged.low is not None and judged.high is not None


def _side(judged: Judgement, comparison: Comparison) -> Comparison | None:
    """On which side of the threshold the whole interval lies."""
    if judged.verdict == "inconclusive":
        return None
    return comparison if judged.verdict == "confirmed" else _opposite(comparison)


def _opposite(comparison: Comparison) -> Comparison:
    return "below" if comparison == "above" else "above"


def _short_of(judged: Judgement, comparison: Comparison, threshold: float) -> float:
    """How far the interval's worse end clears the threshold; negative where it doesn't."""
    assert judged.low is not None and judged.high is not None
    return judged.low - threshold if comparison == "above" else threshold - judged.high


def _said(step: Step) -> str:
    return f"{step.name}: {step.ratio.effect:.4g} [{step.ratio.low:.4g}, {step.ratio.high:.4g}]"


def _gap(steps: Sequence[Step]) -> str | None:
    """Why the first of them that has no ratio has none."""
    return next((step.ratio.reason for step in steps if not _bounded(step.ratio)), None)


def _why_none(steps: Sequence[Step]) -> str:
    return f"{steps[0].name}: {steps[0].ratio.reason}" if steps else "there is but one value, and no step from it"


def _told(step: Step, verdict: Verdict, n: int, method: str, reason: str) -> Judgement:
    return Judgement(verdict, step.ratio.effect, step.ratio.low, step.ratio.high, n, method, reason)
