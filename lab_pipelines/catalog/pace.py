"""How long a lab's stages hold, and how fast its stack's clock runs.

Doesn't belong here: which stages a pace makes of a step (lab_pipelines/load_stages.py).
"""

from __future__ import annotations

from pydantic import Field, model_validator

from lab_pipelines.catalog.strict import SpecModel


class Pace(SpecModel):
    """How long each stage holds, and how fast the stack's clock runs.

    A stage ends when it has held for `hold_s` and enough requests have started and finished within it: `min_requests`,
    and `requests_per_user` for each concurrent user. At `max_hold_s` it ends all the same and fails the blocking check.
    `time_scale` = stack seconds per wall second; anything but 1 needs a modelled server, and is recorded in every row
    and shown in every table.
    """

    time_scale: float = Field(gt=0)
    hold_s: float = Field(gt=0)
    min_requests: int = Field(ge=1)
    requests_per_user: int = Field(ge=1)
    """Only requests that begin and end in a stage count for it, so a stage that is short for its latency keeps the fast
    ones and drops the slow ones: with 32 users and one request each, the median TTFT came out four times too low."""
    max_hold_s: float = Field(gt=0)
    max_users: int | None = Field(default=None, ge=1)
    """Leaves out the stages above this concurrency."""
    baseline: bool = True
    """Whether a run at this pace may be pinned as a baseline."""

    def requests_needed(self, users: int) -> int:
        """How many requests must begin and end in a stage of so many users."""
        return max(self.min_requests, self.requests_per_user * users)

    @model_validator(mode="after")
    def _max_not_below_hold(self) -> Pace:
        if self.max_hold_s < self.hold_s:
            raise ValueError(f"max_hold_s ({self.max_hold_s:g}) is below hold_s ({self.hold_s:g})")
        return self
