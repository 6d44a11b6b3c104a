"""One engine in virtual time: arrivals in, and every step's end as fast as it can be computed.

Belongs here: when a step begins and ends, and when each token of a request came.
Doesn't belong here: what a step is (core.py), what is told of it (observer.py), where requests come from.

A step begins when the one before it ends, or when the first request arrives at an idle engine. A request joins the
first step that begins at or after its arrival. Stretches in which nothing but the decodes' progress changes are taken
at once.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lab_pipelines.engine.core import Engine, Leap, Step
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.served import Served

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray


LONGEST_PATIENCE = 31
"""Steps between two tries to leap, after many that failed."""


class Tracked(Served):
    """A request whose tokens' times can be asked of its replica."""

    __slots__ = ("_spans",)

    _spans: list[int]
    """First and last step of each stretch in which it got tokens, flat; a stretch that goes on has no last one yet."""


T = TypeVar("T", bound=Tracked)


class Observer(Protocol):
    """Told of every step, in order. Seconds are virtual."""

    def step(self, step: Step[Any], started_s: float, ended_s: float) -> None: ...

    def leap(self, leap: Leap, started_s: float, ended_s: NDArray[float64]) -> None:
        """`ended_s` has the end of each of its steps."""

    def idle(self, since_s: float) -> None:
        """Nothing is left to do."""


class Replica(Generic[T]):
    """`now_s` is the end of the last step, or the moment that an idle engine has been brought to."""

    def __init__(
        self,
        engine: Engine[T],
        cost: StepCost,
        *,
        start_s: float,
        observer: Observer | None = None,
        leaps: bool = True,
    ) -> None:
        self.engine = engine
        self.now_s = start_s
        self._cost = cost
        self._observer = observer
        self._leaps = leaps
        self._patience = 0
        self._steps_to_go = 0
        """Steps to take one by one before a leap is tried again."""
        self._arrivals: deque[T] = deque()
        self._ends = array("d")
        """The end of every step so far."""

    @property
    def in_system(self) -> int:
        """Requests that have been submitted and have not ended."""
        return self.engine.running + len(self.engine.waiting) + len(self._arrivals)

    def submit(self, request: T) -> None:
        """Let a request arrive at its `arrived_s`, no earlier than those before it. Raises `ContextOverflowError`."""
        request._spans = []
        if self._arrivals or request.arrived_s > self.now_s:
            self.engine.check(request)
            self._arrivals.append(request)
        else:
            self.engine.add(request)

    def abort(self, request: T) -> None:
        """Drop a request, as when its client has gone. Nothing happens if it has ended."""
        if request.state == "new":
            self._arrivals.remove(request)
            request.state = "aborted"
            return
        decoding = request.state == "decoding"
        if self.engine.abort(request) and decoding:
            request._spans.append(len(self._ends) - 1)

    def advance(self, until_s: float) -> list[T]:
        """Take steps until some requests have ended, at `now_s`: those. Brings an engine without work to `until_s`.

        None have when the next step would begin at or after `until_s`.
        """
        engine, arrivals, observer = self.engine, self._arrivals, self._observer
        while True:
            while arrivals and arrivals[0].arrived_s <= self.now_s:
                engine.add(arrivals.popleft())
            if not engine.has_work:
                if observer is not None:
                    observer.idle(self.now_s)
                if not arrivals or arrivals[0].arrived_s >= until_s:
                    self.now_s = max(self.now_s, until_s)
                    return []
                self.now_s = arrivals[0].arrived_s
                continue
            if self.now_s >= until_s:
                return []
            if self._leaps and not self._steps_to_go:
                limit_s = min(until_s, arrivals[0].arrived_s) if arrivals else until_s
                leap = engine.leap(limit_s - self.now_s, self._cost.steps_s)
                if leap is not None:
                    self._take(leap)
                    self._patience = 0
                    continue
                # Where one could not be taken the next can seldom be: a full cache changes with almost every step.
                self._patience = min(2 * self._patience + 1, LONGEST_PATIENCE)
                self._steps_to_go = self._patience
            self._steps_to_go = max(self._steps_to_go - 1, 0)
            if finished := self._step():
                return finished

    def event_times(self, request: T) -> list[float]:
        """When each streamed event of a request was ready: one for each step that gave it tokens, in order."""
        spans, ends = request._spans, self._ends
        if len(spans) == 2:
            return ends[spans[0] : spans[1] + 1].tolist()
        closed = spans if len(spans) % 2 == 0 else [*spans, len(ends) - 1]
        return [end for n in range(0, len(closed), 2) for end in ends[closed[n] : closed[n + 1] + 1]]

    def _take(self, leap: Leap) -> None:
        started_s = self.now_s
        # Adding one duration after the other, as single steps would, gives the same floats.
        ended_s = leap.durations_s.copy()
        ended_s[0] += started_s
        ended_s = ended_s.cumsum()
        self._ends.frombytes(ended_s.tobytes())
        self.now_s = float(ended_s[-1])
        if self._observer is not None:
            self._observer.leap(leap, started_s, ended_s)

    def _step(self) -> list[T]:
        started_s = self.now_s
        step = self.engine.step()
        self.now_s = ended_s = started_s + step.duration_s
        number = len(self._ends)
        self._ends.append(ended_s)
        for request in step.preempted:
            if len(request._spans) % 2:  # it was decoding, up to the step before
                request._spans.append(number - 1)
        for request in step.admitted:
            if request.scheduled_s is None:
                request.scheduled_s = started_s
        for request in step.prefilled:
            request._spans.append(number)
        for request in step.finished:
            request._spans.append(number)
        if self._observer is not None:
            self._observer.step(step, started_s, ended_s)
        for request in step.prefilled:
            if request.first_token_s is None:
                request.first_token_s = ended_s
        return list(step.finished)
