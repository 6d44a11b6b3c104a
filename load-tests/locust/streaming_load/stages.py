"""When a stage of the ramp may end. Pure: the caller brings the clock and the news of finished requests."""

from __future__ import annotations

import math
from typing import Literal

from streaming_load.plan import Stage

End = Literal["held", "longest hold"]


class StageWatch:
    """One running stage.

    It ends once it has held for its time and enough requests have both started and finished within it, or at its
    longest hold. How a request ended doesn't matter here: failures are judged from the records.
    """

    def __init__(self, stage: Stage, *, started_at: float) -> None:
        self.stage = stage
        self.started_at = started_at
        self.finished = 0

    def request_finished(self, *, sent_at: float) -> None:
        """Count a request unless it was sent before the stage began."""
        if sent_at >= self.started_at:
            self.finished += 1

    def end(self, now: float) -> End | None:
        """Why the stage may end at `now`, or None while it must go on."""
        held_s = now - self.started_at
        if held_s >= self.stage.hold_wall_s and self.finished >= self.stage.min_requests:
            return "held"
        return "longest hold" if held_s >= self.stage.max_hold_wall_s else None

    def next_change(self, now: float) -> float:
        """Seconds from `now` to the next moment at which time alone could end the stage."""
        ends = (self.started_at + self.stage.hold_wall_s, self.started_at + self.stage.max_hold_wall_s)
        return min((end - now for end in ends if end > now), default=math.inf)

    def line(self, now: float, *, position: str) -> str:
        """How far the stage is, for a person. `position` is which of the stages it is, e.g. 3/5."""
        return (
            f"stage {position} · {self.stage.users} users · "
            f"{self.finished}/{self.stage.min_requests} requests · {now - self.started_at:.1f} s"
        )
