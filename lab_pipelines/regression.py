"""Is a run worse than it may be? A verdict from intervals, which doesn't mistake noise for a regression.

Belongs here: the rule, as pure functions on numbers. Doesn't belong here: the numbers of a run (run_numbers.py),
reading them (regression_runs.py), splitting their past into levels (statistics/drift.py), how it is told
(cli/regress.py).

The rule: a quantity has got worse when the whole interval of its change lies beyond a threshold that matters. The
interval holds what the requests of both sides leave open, and by how much two runs of the same code differ. That is
taken from the runs' own past where there are `MIN_HISTORY` of them, and else allowed for as `Allowance` says. Changes
are ratios, on the scale of their logarithm, turned so that above 1 is worse.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import Literal

from lab_pipelines.run_numbers import QUANTITIES, Cell, Number, Quantity, Run, numbers_of, wholes
from lab_pipelines.statistics.drift import drift
from lab_pipelines.statistics.estimate import CONFIDENCE
from lab_pipelines.statistics.multiple import simultaneous
from lab_pipelines.words import counted

Verdict = Literal["worse", "better", "same", "inconclusive", "missing"]
"""`missing`: the other side has the number, and this run hasn't."""

THRESHOLD = 0.05
"""A change that nobody would act on is none: 5 %."""
MIN_HISTORY = 5
"""Runs whose spread says how much two of them differ; fewer know it to a factor of three or worse."""


class Allowance(Enum):
    """By how much two runs of the same code may differ where their past doesn't say: 19 of 20 pairs differ by less.

    Public figures: a binary differed by 0.3 % from run to run within one CI job and by 26 % between two machines of
    the same kind; small serving loads vary by 10 to 20 % normally.
    """

    NONE = (0.0, "a rehearsal's clock is virtual: nothing else disturbs it")
    SAME_JOB = (0.003, "both runs are of one job")
    SAME_PLACE = (0.20, "two jobs in one place; small loads vary by 10 to 20 %")
    ANOTHER_MACHINE = (0.26, "the baseline's run is not in this warehouse, so it may be of another machine")

    @property
    def share(self) -> float:
        return self.value[0]

    @property
    def reason(self) -> str:
        return self.value[1]


@dataclass(frozen=True)
class Past:
    """What a cell was in the earlier runs of today's level."""

    values: tuple[float, ...]
    note: str
    """What became of the others; empty where there are none."""
    apart: tuple[float, ...] = ()
    """Of single runs that lay apart, while the next ones didn't: their value over their own level's."""

    @property
    def level(self) -> float | None:
        """The geometric mean of today's level."""
        return math.exp(math.fsum(map(math.log, self.values)) / len(self.values)) if self.values else None

    def worst_apart(self, cell: Cell, reference: float) -> float:
        """How much worse than `reference` the worst of those runs would be today."""
        level = self.level
        today = [Number(level * ratio) for ratio in self.apart] if level else []
        return max((_worse(cell, one, Number(reference)) for one in today), default=-math.inf)


@dataclass(frozen=True)
class Question:
    """A comparison whose confidence isn't known yet: that depends on how many there are."""

    against: str
    cell: Cell
    value: float | None
    reference: float | None
    n: str
    """Of what: requests, runs."""
    reason: str
    """Where its uncertainty is from; of one without an interval, why."""
    worse: float | None = None
    """The logarithm of the change, above zero for the worse. None: there is no interval."""
    normal: float = 0.0
    """Standard deviation of the part that is known as normal."""
    student: float = 0.0
    """Standard deviation of the part that `freedom` + 1 runs tell."""
    freedom: int = 0
    allowed: float = 0.0
    """Half the 95 % interval of the part that is allowed for."""
    excused_to: float = -math.inf
    """How much worse a single earlier run was, though those after it weren't."""

    @property
    def missing(self) -> bool:
        return self.value is None


@dataclass(frozen=True)
class Comparison:
    """One quantity of one stage, or of all stages together, against one reference."""

    against: str
    cell: Cell
    verdict: Verdict
    value: float | None
    reference: float | None
    change: float | None
    """Relative to the reference: 0.1 is a tenth more. `low` to `high` is its interval."""
    low: float | None
    high: float | None
    n: str
    reason: str


def against_run(
    run: Run,
    reference: Run,
    *,
    name: str,
    allowance: Allowance,
    allowed: float | None = None,
    earlier: Sequence[Run] = (),
    quantities: Collection[Quantity] = QUANTITIES,
) -> list[Question]:
    """One question per number that `reference` has, and one per quantity over all stages of a variant.

    By how much two runs differ is what the `earlier` ones say, else `allowance`, or the share `allowed` in its place. A
    side without a spread of its own is taken to be as uncertain as the other one.
    """
    share = allowance.share if allowed is None else allowed
    told = f"allowing {share * 100:.1f} % between two runs: {allowance.reason if allowed is None else 'as given'}"
    asked = [cell for cell in reference.numbers if cell.quantity in quantities]
    shared = [cell for cell in asked if cell in run.numbers]
    mine, theirs = numbers_of(run, shared), numbers_of(reference, shared)
    pasts = pasts_of(earlier, shared)
    found = [
        Question(name, cell, None, reference.numbers[cell].value, "", "the other side has it, and this run hasn't")
        for cell in asked
        if cell not in mine
    ]
    for cell in mine:
        sides, past = (mine[cell], theirs[cell]), pasts[cell]
        spreads = [side.spread for side in sides if side.spread is not None]
        n = f"{sides[0].n} against {sides[1].n} requests"
        question = Question(name, cell, sides[0].value, sides[1].value, n, told, _worse(cell, *sides))
        if not spreads:
            question = replace(question, worse=None, reason=_too_few(cell, n))
        elif len(past.values) >= MIN_HISTORY and (spread := max([spread_of(past.values), *spreads])):
            freedom = len(past.values) - 1
            question = replace(
                question,
                reason=_spread_told(past, max(spreads)),
                student=spread * 2**0.5,
                freedom=freedom,
                excused_to=past.worst_apart(cell, sides[1].value),
            )
        else:
            within = [side.spread if side.spread is not None else spreads[0] for side in sides]
            question = replace(question, normal=math.hypot(*within), allowed=math.log1p(share))
        found.append(question)
    return found


def against_history(
    run: Run, earlier: Sequence[Run], *, quantities: Collection[Quantity] = QUANTITIES
) -> list[Question]:
    """One question per number that the last of the `earlier` runs has, and one per quantity over all stages.

    Each is set against the mean of the earlier runs since their last step, without outliers.
    """
    if not earlier:
        return []
    asked = [cell for cell in earlier[-1].numbers if cell.quantity in quantities]
    shared = [cell for cell in asked if cell in run.numbers]
    mine, pasts = numbers_of(run, shared), pasts_of(earlier, shared)
    last = earlier[-1].numbers
    found = [
        Question("history", cell, None, last[cell].value, "", "the run before has it, and this one hasn't")
        for cell in asked
        if cell not in mine
    ]
    for cell, number in mine.items():
        values, level = pasts[cell].values, pasts[cell].level
        count = len(values)
        question = Question("history", cell, number.value, level, f"1 against {count}", "")
        if level is None or count < MIN_HISTORY:
            reason = f"{counted(count, 'earlier run')}{pasts[cell].note}; their spread takes {MIN_HISTORY} to know"
            question = replace(question, reason=reason)
        elif number.spread is None:
            question = replace(question, reason=_too_few(cell, f"{number.n} requests"))
        elif spread := max(spread_of(values), number.spread):
            worse, student = _worse(cell, number, Number(level)), spread * math.sqrt(1 + 1 / count)
            excused_to = pasts[cell].worst_apart(cell, level)
            told = _spread_told(pasts[cell], number.spread)
            question = replace(
                question, reason=told, worse=worse, student=student, freedom=count - 1, excused_to=excused_to
            )
        else:
            question = replace(question, reason="neither its requests nor the earlier runs vary at all")
        found.append(question)
    return found


def _spread_told(past: Past, within: float) -> str:
    """Where the spread is from: the earlier runs', or that `within` a run, where the requests alone vary more."""
    told = f"spread of {counted(len(past.values), 'earlier run')}{past.note}"
    return f"{told}, but that of the requests is wider and taken" if within > spread_of(past.values) else told


def _too_few(cell: Cell, n: str) -> str:
    """Of what has no interval within its run, earlier runs don't make a number: it may be one slow request's."""
    return f"{n}: too few {'in some stage ' if cell.is_whole else ''}for an interval"


def pasts_of(earlier: Sequence[Run], cells: Collection[Cell]) -> dict[Cell, Past]:
    """Of each cell, and of all of them together, what the earlier runs say of today's level.

    Fewer than `drift.MIN_RUNS` runs can't be split into levels, and count all.
    """
    series: dict[Cell, list[float]] = {cell: [] for cell in (*cells, *wholes(cells))}
    for run in earlier:
        for cell, number in numbers_of(run, cells).items():
            series[cell].append(number.value)
    return {cell: _past(values) for cell, values in series.items()}


def _past(values: Sequence[float]) -> Past:
    told = drift(values)
    if told.state == "unknown":
        return Past(tuple(values), "")
    kept, last = told.of_last_level(), told.levels[-1]
    apart_today = len(values) - last.start - len(kept)
    left_out = [
        *([f"{last.start} before the last step"] if last.start else []),
        *([f"{apart_today} that lie apart"] if apart_today else []),
    ]
    # The last ones may be the beginning of a step.
    settled = len(values) - (told.unsettled or (len(values) - 1 in told.outliers))
    return Past(
        tuple(values[index] for index in kept),
        f" (without {' and '.join(left_out)})" if left_out else "",
        tuple(
            values[index] / level.value
            for level in told.levels
            for index in told.outliers
            if level.start <= index < min(level.end, settled)
        ),
    )


def judged(
    questions: Sequence[Question], *, threshold: float = THRESHOLD, confidence: float = CONFIDENCE
) -> list[Comparison]:
    """A verdict for each question, such that with probability `confidence` none is called worse without being so.

    Half of that is for the quantities over all stages, half for the stages (Bonferroni, weighted): a slow-down of
    everything shows where noise averages out, and one of a single stage isn't lost among the others. Each end of an
    interval holds with this confidence, since one side alone is at stake.
    """
    asked = {whole: sum(q.worse is not None for q in questions if q.cell.is_whole == whole) for whole in (True, False)}
    part = 1 - (1 - confidence) / 2 if all(asked.values()) else confidence
    return [_judged(one, threshold, simultaneous(part, asked[one.cell.is_whole])) for one in questions]


def _judged(question: Question, threshold: float, one_sided: float) -> Comparison:
    q = question
    if q.missing or q.worse is None:
        verdict = "missing" if q.missing else "inconclusive"
        change = None if q.value is None or not q.reference else q.value / q.reference - 1
        return Comparison(q.against, q.cell, verdict, q.value, q.reference, change, None, None, q.n, q.reason)
    reach, edge = _reach(q, one_sided), math.log1p(threshold)
    verdict: Verdict = "inconclusive"
    told = f"a change below {math.expm1(edge + reach) * 100:.0f} % can't be told from noise"
    if edge < q.worse - reach <= q.excused_to:
        told = "beyond the threshold, but an earlier run was as bad and the next ones weren't; run it again"
    elif q.worse - reach > edge:
        verdict, told = "worse", f"the whole interval is beyond {threshold * 100:.3g} %"
    elif q.worse + reach < -edge:
        verdict, told = "better", f"the whole interval is beyond {threshold * 100:.3g} %"
    elif abs(q.worse) + reach < edge:
        verdict, told = "same", f"the whole interval is within {threshold * 100:.3g} %"
    sign = -1 if q.cell.quantity.higher_is_better else 1
    low, high = sorted(math.expm1(sign * (q.worse + side * reach)) for side in (-1, 1))
    change = math.expm1(sign * q.worse)
    return Comparison(q.against, q.cell, verdict, q.value, q.reference, change, low, high, q.n, f"{told}; {q.reason}")


def _reach(question: Question, one_sided: float) -> float:
    """Half the interval. Independent parts add up by their squares, each at its own quantile."""
    z = _quantile(one_sided, None)
    parts = [z * question.normal, question.allowed * z / _quantile((1 + CONFIDENCE) / 2, None)]
    if question.student:
        parts.append(_quantile(one_sided, question.freedom) * question.student)
    return math.hypot(*parts)


@cache
def _quantile(probability: float, freedom: int | None) -> float:
    """Of Student's t; without `freedom`, of the normal distribution."""
    from scipy.stats import norm, t

    return float(norm.ppf(probability) if freedom is None else t.ppf(probability, freedom))


def _worse(cell: Cell, mine: Number, theirs: Number) -> float:
    change = math.log(mine.value / theirs.value)
    return -change if cell.quantity.higher_is_better else change


def spread_of(values: Sequence[float]) -> float:
    """The standard deviation of the logarithms; zero for values that differ by rounding alone."""
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in logs) / (len(logs) - 1))
    return spread if spread > 1e-9 else 0.0


Outcome = Literal["regression", "missing", "nothing compared", "no regression", "inconclusive"]


def outcome_of(comparisons: Sequence[Comparison]) -> Outcome:
    """What the check as a whole says: the gravest that any comparison does.

    `inconclusive`: nothing is worse, and nothing could be shown to be the same or better.
    """
    verdicts = {one.verdict for one in comparisons}
    if "worse" in verdicts:
        return "regression"
    if "missing" in verdicts:
        return "missing"
    if all(one.low is None for one in comparisons):
        return "nothing compared"
    return "no regression" if verdicts & {"same", "better"} else "inconclusive"
