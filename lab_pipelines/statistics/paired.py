"""Two variants compared within one run, turn by turn, and what could have been seen at all.

Between two runs the same binary differs by ten or twenty times as much as within one; so variants are walked in a
balanced order (lab_pipelines/turns.py), and each turn's pair is compared with itself.
Doesn't belong here: stages of one turn (comparisons.py).

What is assumed of the pairs, and why it may be:
- Each turn is worth one pair, however many requests it had. Requests of one visit share its state; as many pairs as
  requests would make intervals of what one visit happened to be like.
- Pairs are independent. What drifts from visit to visit falls on both of a turn, and the changing order turns its sign
  around; what is left of a level that wanders is its change between two neighbours, and such changes are independent.
  An effect that itself changes with time is not covered: with a correlation of 0.3 from turn to turn, a 95 % interval
  holds the truth in 88 of a hundred.
- Logarithms of ratios are symmetric. They are where both variants are equally likely to be the one that is disturbed,
  and then heavy tails only make the interval wider. Where disturbances fall on one variant alone, they are its effect,
  and rare ones take many turns to be seen at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from lab_pipelines.deployment import MOST_TURNS
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, Series, as_array, refused
from lab_pipelines.statistics.findings import Judgement, Verdict, holds
from lab_pipelines.words import counted

MIN_PAIRS = 5
"""With four pairs that all agree, chance alone explains it once in eight times."""
SAME = 1e-4
"""Pairs whose ratios spread by less are repeats of one draw, as a model without chance gives them: they differ by
rounding, and an interval of that would be of nothing. Within one run, real engines were seen to spread by 3e-3."""
POWER = 0.8
_METHOD = "geometric mean of the pairs' ratios, t interval on its logarithm"


def paired_ratio(candidate: Series, baseline: Series, *, confidence: float = CONFIDENCE) -> Estimate:
    """The ratio candidate / baseline over pairs of the same turn, with a t interval on its logarithm.

    `value` is the geometric mean of the pairs' ratios; for what is assumed see the module. Refused below `MIN_PAIRS`,
    for pairs that are all the same, and for values of zero or less. `confidence` is each comparison's own: see
    `multiple.simultaneous`. Raises `ValueError` for two sides of different length, or values that aren't finite.
    """
    from scipy.stats import t

    n = len(as_array(candidate))
    logs = _logs(candidate, baseline)
    if logs is None:
        return refused(None, n, _METHOD, "a value of zero or less has no ratio")
    value = math.exp(math.fsum(logs) / n) if n else None
    if value is None or n < MIN_PAIRS:
        return refused(value, n, _METHOD, f"{counted(n, 'pair')}; a comparison needs {MIN_PAIRS}")
    spread = _spread(logs)
    if spread < SAME:
        return refused(value, n, _METHOD, f"all {n} pairs gave the same, as repeats of one draw do")
    reach = float(t.ppf((1 + confidence) / 2, n - 1)) * spread / math.sqrt(n)
    return Estimate(value, value * math.exp(-reach), value * math.exp(reach), n, float(n), _METHOD)


def judge_pairs(
    candidate: Series,
    baseline: Series,
    *,
    comparison: Literal["above", "below"],
    threshold: float,
    confidence: float = CONFIDENCE,
) -> Judgement:
    """Is candidate / baseline above or below `threshold`, by pairs of the same turn?

    The verdict is that of `paired_ratio`'s interval. `reason` also has the p value of `sign_flip_p`, which assumes
    less, and where nothing is decided, how many turns it would take.
    """
    found = paired_ratio(candidate, baseline, confidence=confidence)
    value, low, high, n = found.value, found.low, found.high, found.n

    def told(verdict: Verdict, reason: str) -> Judgement:
        return Judgement(verdict, value, low, high, n, f"{found.method} ({confidence * 100:.4g} %)", reason)

    if value is None or low is None or high is None:
        more = f": walk the variants in {MIN_PAIRS} turns or more" if n < MIN_PAIRS else ""
        return told("inconclusive", f"{found.reason}{more}")
    logs = _logs(candidate, baseline) or []
    alone = f"(sign flips alone: p = {sign_flip_p([one - math.log(threshold) for one in logs]):.2g})"
    interval = f"[{low:.4g}, {high:.4g}]"
    if (held := holds(low, high, comparison, threshold)) is not None:
        said = f"{interval} is {'' if held else 'not '}{comparison} {threshold:g} {alone}"
        return told("confirmed" if held else "refuted", said)
    spread, seen = _spread(logs), max(value / threshold, threshold / value)
    factor = minimum_detectable_ratio(spread, n, confidence=confidence)
    needed = pairs_needed(spread, seen, confidence=confidence)
    takes = f"more than {MOST_TURNS} turns" if needed is None else f"{needed} turns"
    return told(
        "inconclusive",
        f"{interval} contains {threshold:g} {alone}; {n} turns find a difference of {factor - 1:.2%} in "
        f"{POWER * 10:.0f} of 10 runs, and one like this, of {seen - 1:.2%}, takes {takes}",
    )


def _logs(candidate: Series, baseline: Series) -> list[float] | None:
    """The logarithm of each pair's ratio; None where one of them has none."""
    import numpy as np

    above, below = as_array(candidate), as_array(baseline)
    if len(above) != len(below):
        raise ValueError(f"{len(above)} values against {len(below)}: pairs have two sides")
    if len(above) and not (above.min() > 0 and below.min() > 0):
        return None
    return [float(one) for one in np.log(above) - np.log(below)]


def _spread(logs: Sequence[float]) -> float:
    """Standard deviation of one pair's logarithm."""
    mean = math.fsum(logs) / len(logs)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in logs) / (len(logs) - 1))


def sign_flip_p(differences: Series, *, draws: int = 20_000, seed: int = 0) -> float:
    """The two-sided p value of "the differences are symmetric about zero", by turning signs around.

    Assumes nothing but that symmetry. All sign patterns up to 14 differences, else `draws` of them (Fisher 1935; the
    observed one counts as drawn: Phipson and Smyth 2010). With five pairs it is never below 0.06, whatever they say.
    """
    import numpy as np

    values = as_array(differences)
    n = len(values)
    if n == 0:
        return 1.0
    observed = abs(float(values.sum())) * (1 - 1e-12)
    if n <= 14:
        patterns = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(patterns @ values) >= observed).mean())
    patterns = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, n))
    return (1 + int((np.abs(patterns @ values) >= observed).sum())) / (draws + 1)


def minimum_detectable_ratio(
    spread: float, pairs: int, *, confidence: float = CONFIDENCE, power: float = POWER
) -> float:
    """The smallest ratio above 1 that so many pairs would find with probability `power`.

    `spread` is the standard deviation of the logarithm of one pair's ratio. By the noncentral t distribution, solved
    for its centre (Cohen 1988, Statistical power analysis). Raises `ValueError` below `MIN_PAIRS`.
    """
    from scipy.optimize import root_scalar
    from scipy.stats import nct, t

    if pairs < MIN_PAIRS:
        raise ValueError(f"{pairs} pairs; a comparison needs {MIN_PAIRS}")
    if spread == 0:
        return 1.0
    critical = float(t.ppf((1 + confidence) / 2, pairs - 1))

    def missing(centre: float) -> float:
        found = nct.sf(critical, pairs - 1, centre) + nct.cdf(-critical, pairs - 1, centre)
        return float(found) - power

    beyond = critical  # where half of all samples find it; far above, the distribution's series gives no number
    while missing(beyond) < 0:
        beyond += 0.5
    centre = float(root_scalar(missing, bracket=(0.0, beyond)).root)
    return math.exp(centre * spread / math.sqrt(pairs))


def pairs_needed(spread: float, ratio: float, *, confidence: float = CONFIDENCE, power: float = POWER) -> int | None:
    """The fewest pairs that would find `ratio` with probability `power`; None: more than `MOST_TURNS`.

    As good as `spread` is known: from few pairs, their standard deviation may be off by half.
    """
    wanted = abs(math.log(ratio))

    def enough(pairs: int) -> bool:
        return math.log(minimum_detectable_ratio(spread, pairs, confidence=confidence, power=power)) <= wanted

    low, high = MIN_PAIRS, MOST_TURNS
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
