"""One estimate against another, or against a number: ratio, difference, bound, with interval and verdict.

Belongs here: how two intervals become one, and what would decide an open claim. Doesn't belong here: the estimates
(means.py, quantiles.py, rates.py), or claims on values that have no interval (findings.py).

Both intervals of a comparison have its own confidence. They become one by MOVER, the method of variance estimates
recovery (Zou and Donner 2008, Construction of confidence limits about effect measures; for two shares it is Newcombe's
hybrid score interval of 1998): each end of the difference lies as far out as the ends that make it do together, by the
root of the sum of their squares. A ratio is a difference of logarithms. The two samples are taken as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate
from lab_pipelines.statistics.findings import Judgement, Verdict, holds

Comparison = Literal["above", "below"]
Scale = Literal["ratio", "unit"]
NEAR = 0.01
"""Nearer to its threshold, relative to it, no number of requests that anybody would send tells an effect from it."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison. `drift` is by how much its series changes, relative to its level, while it is measured:
    0 in a steady state, or where that can't be told."""

    name: str
    estimate: Estimate
    drift: float = 0.0


@dataclass(frozen=True)
class _Bounds:
    effect: float
    low: float
    high: float

    def holds(self, comparison: Comparison, threshold: float) -> bool | None:
        return holds(self.low, self.high, comparison, threshold)


def ratio(
    above: Side, below: Side, *, comparison: Comparison, threshold: float, confidence: float = CONFIDENCE
) -> Judgement:
    """Is `above` over `below` above or below `threshold`? Its estimates have `confidence`; both must be positive."""
    method = f"ratio, {_told_at(confidence, [above, below])}"
    sides = [above, below]
    if (why := _why_none(sides)) is not None:
        return _open(sides, method, why)
    parts = [_known(side) for side in sides]
    if (nothing := next((s.name for s, part in zip(sides, parts, strict=True) if part.low <= 0), None)) is not None:
        return _open(sides, method, f"{nothing}: its interval reaches zero, and a ratio takes none of that")
    logs = [_Bounds(*(math.log(value) for value in (part.effect, part.low, part.high))) for part in parts]
    together = _minus(*logs)
    found = _Bounds(*(math.exp(value) for value in (together.effect, together.low, together.high)))
    stretch = math.prod(1 + abs(side.drift) for side in sides)
    stretched = _Bounds(found.effect, found.low / stretch, found.high * stretch)
    return _judged(found, stretched, sides, method, comparison, threshold, confidence, "ratio")


def difference(
    above: Side, below: Side, *, comparison: Comparison, threshold: float, confidence: float = CONFIDENCE
) -> Judgement:
    """Is `above` minus `below`, in the quantity's unit, above or below `threshold`? As `ratio`."""
    method = f"difference, {_told_at(confidence, [above, below])}"
    sides = [above, below]
    if (why := _why_none(sides)) is not None:
        return _open(sides, method, why)
    parts = [_known(side) for side in sides]
    found = _minus(*parts)
    drift = sum(abs(side.drift * part.effect) for side, part in zip(sides, parts, strict=True))
    stretched = _Bounds(found.effect, found.low - drift, found.high + drift)
    return _judged(found, stretched, sides, method, comparison, threshold, confidence, "unit")


def level(side: Side, *, comparison: Comparison, threshold: float, confidence: float = CONFIDENCE) -> Judgement:
    """Is the quantity above or below `threshold`? The estimate has `confidence`."""
    method = f"value, {_told_at(confidence, [side])}"
    if (why := _why_none([side])) is not None:
        return _open([side], method, why)
    found = _known(side)
    drift = abs(side.drift * found.effect)
    stretched = _Bounds(found.effect, found.low - drift, found.high + drift)
    return _judged(found, stretched, [side], method, comparison, threshold, confidence, "unit")


def requests_factor(
    effect: float, low: float, high: float, threshold: float, *, scale: Scale, confidence: float
) -> float | None:
    """How many times the requests it takes until 8 of 10 intervals clear the threshold, the effect being what it is.

    An interval's reach shrinks with the root of the sample: (reach / distance)^2, where the reach is that of the end on
    the threshold's side, of a ratio on its logarithm, and longer by `_powered`: an interval that just comes to the
    threshold on average clears it in one of two samples. None where the effect is as good as at the threshold (`NEAR`).
    """
    end, powered = low if effect > threshold else high, _powered(confidence)
    if scale == "ratio":
        if end <= 0 or effect <= 0:
            return None
        reach, distance = abs(math.log(effect / end)), abs(math.log(effect / threshold))
        return None if distance < NEAR else (reach * powered / distance) ** 2
    reach, distance = abs(effect - end), abs(effect - threshold)
    return None if distance <= NEAR * abs(threshold) else (reach * powered / distance) ** 2


def _powered(confidence: float) -> float:
    """How many half widths of its interval an effect lies from a threshold that 8 of 10 samples tell it from: z(0.8)
    more than the interval itself."""
    from scipy.special import ndtri

    return 1 + float(ndtri(0.8)) / float(ndtri((1 + confidence) / 2))


def _minus(one: _Bounds, other: _Bounds) -> _Bounds:
    effect = one.effect - other.effect
    return _Bounds(
        effect,
        effect - math.hypot(one.effect - one.low, other.high - other.effect),
        effect + math.hypot(one.high - one.effect, other.effect - other.low),
    )


def _judged(
    found: _Bounds,
    stretched: _Bounds,
    sides: list[Side],
    method: str,
    comparison: Comparison,
    threshold: float,
    confidence: float,
    scale: Scale,
) -> Judgement:
    n = min(side.estimate.n for side in sides)
    interval = f"[{found.low:.4g}, {found.high:.4g}]"  # rounded to three it may seem to touch what it clears

    def told(verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, found.effect, found.low, found.high, n, method, reason)

    verdict = found.holds(comparison, threshold)
    if verdict is None:
        more = _more(found, threshold, confidence, scale)
        return told("inconclusive", f"{interval} contains {threshold:g}; {more}")
    restless = [f"{one.name} changes by {one.drift:+.0%}" for one in sides if one.drift]
    said = f"{interval} is {'' if verdict else 'not '}{comparison} {threshold:g}"
    if stretched.holds(comparison, threshold) is None:
        # The mean of what rises or falls depends on when one looks.
        reason = f"{said}, but {' and '.join(restless)} while it is measured: no steady state"
        return told("inconclusive", reason)
    note = f", also as {' and '.join(restless)} while it is measured" if restless else ""
    return told("confirmed" if verdict else "refuted", said + note)


def _more(found: _Bounds, threshold: float, confidence: float, scale: Scale) -> str:
    """What such a sample could have told, and how much larger it must be."""
    reach = _powered(confidence)
    if scale == "ratio":
        far = math.exp(reach * math.log(found.high / found.low) / 2)
        least, most = threshold / far, threshold * far
    else:
        far = reach * (found.high - found.low) / 2
        least, most = threshold - far, threshold + far
    factor = requests_factor(found.effect, found.low, found.high, threshold, scale=scale, confidence=confidence)
    # Rounded up, so that it never says that as many would do.
    needs = (
        "the effect lies at the threshold, and no number of requests decides that"
        if factor is None
        else f"about {math.ceil(factor * 10) / 10:.3g} times the requests would decide it at this effect"
    )
    return f"{needs}; as many as these decide effects below {least:.3g} or above {most:.3g} (8 times in 10)"


def _known(side: Side) -> _Bounds:
    one = side.estimate
    assert one.value is not None and one.low is not None and one.high is not None
    return _Bounds(one.value, one.low, one.high)


def _why_none(sides: list[Side]) -> str | None:
    missing = [": ".join(filter(None, (s.name, s.estimate.reason))) for s in sides if not s.estimate.bounded]
    return "; ".join(missing) or None


def _open(sides: list[Side], method: str, reason: str) -> Judgement:
    return Judgement("inconclusive", None, None, None, min(side.estimate.n for side in sides), method, reason)


def _told_at(confidence: float, sides: list[Side]) -> str:
    """Such as `95 % interval (MOVER); order statistics around the p50; n 96 and 200, worth 51 and 200`."""
    estimates = [side.estimate for side in sides]
    methods = "; ".join(dict.fromkeys(one.method for one in estimates))
    sizes = " and ".join(str(one.n) for one in estimates)
    worth = ""
    if any(one.n_effective is not None and round(one.n_effective) < one.n for one in estimates):
        worth = ", worth " + " and ".join("?" if e.n_effective is None else f"{e.n_effective:.0f}" for e in estimates)
    together = " (MOVER)" if len(sides) > 1 else ""
    return f"{confidence * 100:.4g} % interval{together}; {methods}; n {sizes}{worth}"
