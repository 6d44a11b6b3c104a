"""Which stages a pace makes of a load step, in stack seconds. Pure, and without Dagster.

Belongs here: how profile and pace together become stages. Doesn't belong here: the wall clock (rows.load_plan) and
applying a load (resources/load_generator.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from lab_pipelines.catalog.spec import Pace
from lab_pipelines.catalog.steps import Burst, Constant, LoadStep, Ramp, Rate


@dataclass(frozen=True)
class LoadStage:
    """One stage as the spec asks for it."""

    stage: int
    users: int | None
    """Concurrent users, or the requests of a burst; None at a rate."""
    offered_per_s: float | None
    """Requests offered per stack second; only at a rate."""
    hold_s: float
    min_requests: int
    """How many must begin and end in it."""
    max_hold_s: float


def load_stages(step: LoadStep, pace: Pace) -> list[LoadStage]:
    """The stages of `step` at `pace`.

    `max_users` leaves out the high stages of a ramp. A burst doesn't hold: it ends with its last request. Raises
    `ValueError` when no stage is left.
    """
    match step.profile:
        case Ramp(users=users):
            applied = [n for n in users if pace.max_users is None or n <= pace.max_users]
            if not applied:
                raise ValueError(
                    f"{step.name}: every stage has more users than the pace's max_users ({pace.max_users}) allows; "
                    "add a lower stage, or raise max_users"
                )
            return [
                LoadStage(index, n, None, pace.hold_s, pace.requests_needed(n), pace.max_hold_s)
                for index, n in enumerate(applied)
            ]
        case Constant(users=n):
            return [LoadStage(0, n, None, pace.hold_s, pace.requests_needed(n), pace.max_hold_s)]
        case Burst(requests=n):
            return [LoadStage(0, n, None, 0.0, n, pace.max_hold_s)]
        case Rate(per_s=rates):
            return [
                LoadStage(index, None, per_s, pace.hold_s, pace.min_requests, pace.max_hold_s)
                for index, per_s in enumerate(rates)
            ]
