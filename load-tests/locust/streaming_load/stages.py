"""When a stage may end. Pure: the caller brings the clock and the news of finished requests."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

from streaming_load.plan import Plan, Stage
from streaming_load.schedule import sample

End = Literal["held", "longest hold"]


class StageWatch(ABC):
    """One running stage. How a request ended doesn't matter here: failures are judged from the records."""

    def __init__(self, stage: Stage, *, started_at: float, hold_s: float, needed: int, load: str) -> None:
        """`hold_s`: the earliest end; `needed`: requests that must have ended by then; `load`: what it is, in words."""
        self.stage = stage
        self.started_at = started_at
        self.finished = 0
        self._hold_s, self._needed, self._load = hold_s, needed, load

    @abstractmethod
    def request_finished(self, **request: Any) -> None:
        """Count a request if this stage waits for it."""

    def end(self, now: float) -> End | None:
        """Why the stage may end at `now`, or None while it must go on."""
        held_s = now - self.started_at
        if held_s >= self._hold_s and self.finished >= self._needed:
            return "held"
        return "longest hold" if held_s >= self.stage.max_hold_wall_s else None

    def next_change(self, now: float) -> float:
        """Seconds from `now` to the next moment at which time alone could end the stage."""
        ends = (self.started_at + self._hold_s, self.started_at + self.stage.max_hold_wall_s)
        return min((end - now for end in ends if end > now), default=math.inf)

    def line(self, now: float, *, position: str) -> str:
        """How far the stage is, for a person. `position` is which of the stages it is, e.g. 3/5."""
        return (
            f"stage {position} · {self._load} · {self.finished}/{self._needed} requests · {now - self.started_at:.1f} s"
        )


class ClosedWatch(StageWatch):
    """A stage of users who send their next request when the last one has ended.

    It ends once it has held for its time and enough requests have both started and finished within it, or at its
    longest hold.
    """

    def __init__(self, stage: Stage, *, started_at: float) -> None:
        super().__init__(
            stage,
            started_at=started_at,
            hold_s=stage.hold_wall_s,
            needed=stage.min_requests,
            load="1 user" if stage.users == 1 else f"{stage.users} users",
        )

    def request_finished(self, *, sent_at: float, **_: Any) -> None:
        """Count a request unless it was sent before the stage began (Unix time)."""
        if sent_at >= self.started_at:
            self.finished += 1


class OpenWatch(StageWatch):
    """A stage whose requests have a schedule.

    It ends once every request of its sample has ended, or at its longest hold. Until then the schedule goes on, so
    that those which end last do so under the same load.
    """

    def __init__(self, plan: Plan, stage: Stage, *, started_at: float) -> None:
        counting = sample(plan, stage)
        super().__init__(
            stage,
            started_at=started_at,
            hold_s=counting.within_s,
            needed=counting.requests,
            load=_load(plan, stage),
        )

    def request_finished(self, *, stage: int, number: int, **_: Any) -> None:
        """Count the `number`-th request of a `stage`'s schedule, from 0, if it belongs to this one's sample."""
        if stage == self.stage.stage and number < self._needed:
            self.finished += 1


def _load(plan: Plan, stage: Stage) -> str:
    """An open loop's load, in words."""
    if plan.profile == "burst":
        return f"burst of {stage.users}"
    per_s = f"{stage.per_wall_s:.3g} requests/s"
    if plan.trace is not None:
        clipped = f", {plan.trace.clipped} requests clipped" if plan.trace.clipped else ""
        return f"trace, {per_s} on the mean{clipped}"
    return f"{per_s} on the mean" if stage.points is not None else per_s
