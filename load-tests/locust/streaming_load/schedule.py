"""When an open loop's requests are due, and which shape each request of a load has. Pure.

Everything here follows from the plan alone, not from its run: two runs of a step are offered the very same load, and
every process of a distributed load knows the whole schedule and takes its own part of it. Each turn of a run draws its
own, the same for all variants.
Doesn't belong here: clocks and greenlets (open_loop.py), or when a stage ends (stages.py).
"""

from __future__ import annotations

import json
import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count, pairwise, repeat, takewhile

from streaming_load.plan import Arrivals, Plan, Stage

_SEED = "labs"
_GOLDEN = (math.sqrt(5) - 1) / 2


def offsets(plan: Plan, stage: Stage) -> Iterator[float]:
    """When each request of an open loop's stage is due, in wall seconds after the stage's start, in order.

    A burst is due at once, and a trace's requests when its file says. Else requests are the arrivals of a process with
    rate 1, put to the times by which so many were to come: at a constant rate, or by the integral of one that changes
    (time rescaling: Cinlar 1975, Introduction to Stochastic Processes, chapter 4).
    So a pattern doesn't depend on the clock's speed. A rate's schedule has no end: the stage has.
    """
    if plan.profile == "burst":
        assert stage.users is not None
        yield from repeat(0.0, stage.users)
    elif plan.profile == "trace":
        assert plan.trace is not None
        yield from (row.at_s / plan.trace.per_wall_s for row in plan.trace.rows)
    elif stage.points is not None:
        yield from _times(stage.points, _arrivals(plan.arrivals, plan.burstiness, plan.step, stage.stage, plan.trial))
    else:
        assert stage.per_wall_s is not None
        arrivals = _arrivals(plan.arrivals, plan.burstiness, plan.step, stage.stage, plan.trial)
        yield from (arrival / stage.per_wall_s for arrival in arrivals)


def requests_within(
    points: Sequence[tuple[float, float]],
    arrivals: Arrivals,
    burstiness: float | None,
    *,
    step: str,
    stage: int,
    trial: int,
) -> int:
    """How many requests of a rate that goes from point to point are due before the last of them."""
    times = _times(points, _arrivals(arrivals, burstiness, step, stage, trial))
    return sum(1 for _ in takewhile(lambda at: at < points[-1][0], times))


def _arrivals(arrivals: Arrivals, burstiness: float | None, step: str, stage: int, trial: int) -> Iterator[float]:
    """Arrivals of a process with rate 1, without end.

    Even ones lie in the middle of their intervals, so that any whole number of intervals holds as many. Poisson and
    gamma arrivals have drawn gaps with mean 1.
    """
    if arrivals == "even":
        yield from (number + 0.5 for number in count())
    # Only random() promises the same sequence in every version of Python.
    numbers = random.Random(json.dumps([_SEED, step, stage, *([trial] if trial > 1 else [])]))
    at = 0.0
    while True:
        at += _gap(numbers, burstiness)
        yield at


def _times(points: Sequence[tuple[float, float]], arrivals: Iterator[float]) -> Iterator[float]:
    """The times by which the integral of the rate has come to each of the arrivals.

    After the last of the `points` the last rate goes on; if that is 0, no arrival comes any more.
    """
    pieces = [(*before, *after) for before, after in pairwise(points)]
    last_at, last_rate = points[-1]
    position, begun = 0, 0.0  # the piece, and the integral at its beginning
    for arrival in arrivals:
        while position < len(pieces):
            start, low, end, high = pieces[position]
            if arrival < begun + (end - start) * (low + high) / 2:
                break
            begun += (end - start) * (low + high) / 2
            position += 1
        left = arrival - begun
        if position < len(pieces):
            start, low, end, high = pieces[position]
            # The root of low t + slope t^2 / 2 = left, in the form that holds for a slope of 0, too.
            slope = (high - low) / (end - start)
            twice = low + math.sqrt(max(low * low + 2 * slope * left, 0.0))
            yield start + 2 * left / twice if left > 0 else start
        elif last_rate > 0:
            yield last_at + left / last_rate
        else:
            return


def _gap(numbers: random.Random, shape: float | None) -> float:
    """The next gap, with mean 1: exponential, or gamma with `shape`."""
    if shape is None:
        return -math.log(1.0 - numbers.random())
    return _gamma(numbers, shape) / shape


def _gamma(numbers: random.Random, shape: float) -> float:
    """Marsaglia and Tsang 2000, A simple method for generating gamma variables; below 1 by their section 6."""
    if shape < 1:
        return _gamma(numbers, shape + 1) * (1.0 - numbers.random()) ** (1 / shape)
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = _normal(numbers)
        v = (1 + c * x) ** 3
        if v > 0 and math.log(1.0 - numbers.random()) < 0.5 * x * x + d - d * v + d * math.log(v):
            return d * v


def _normal(numbers: random.Random) -> float:
    """Box and Muller: the generator's own normal values may change from one Python to the next."""
    return math.sqrt(-2 * math.log(1.0 - numbers.random())) * math.cos(2 * math.pi * numbers.random())


@dataclass(frozen=True)
class Sample:
    """The requests of an open loop's stage that count: the first `requests` ones, all due within `within_s`."""

    requests: int
    within_s: float


def sample(plan: Plan, stage: Stage) -> Sample:
    """What counts in a stage: all that is due while it holds, and at least its `min_requests`.

    It is fixed before the first request is sent. If instead those counted that happen to have ended by the end, the
    slowest would be missing: exactly those that a stalled server held up.
    """
    requests, within_s = 0, stage.hold_wall_s
    for due in offsets(plan, stage):
        if due >= stage.hold_wall_s and requests >= stage.min_requests:
            break
        requests, within_s = requests + 1, max(within_s, due)
    return Sample(requests, within_s)


class Mix:
    """Which shape a request has: by weight, in a fixed order in which every shape comes round evenly.

    The turns' golden-ratio sequence (additive recurrence) falls into the shapes' shares of [0, 1). Of any n turns in a
    row a shape gets its share to within about two, where random picks would be off by the root of n.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = sum(weights)
        self._edges = [edge / total for edge in accumulate(weights)][:-1]

    def shape(self, turn: int) -> int:
        """The index of the shape that has this turn, counted from 0."""
        return bisect_right(self._edges, (0.5 + turn * _GOLDEN) % 1.0)
