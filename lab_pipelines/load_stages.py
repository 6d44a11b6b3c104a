"""Which stages a pace makes of a load step, in stack seconds. Without Dagster, and pure but for a trace, whose file
says how many requests it has and how long it lasts.

Belongs here: how profile and pace together become stages. Doesn't belong here: the wall clock (load_plan.py) and
applying a load (resources/load_generator.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from streaming_load.schedule import requests_within

from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.steps import Burst, Constant, LoadStep, Ramp, Rate, RateProfile, TracedRequest, TraceReplay
from lab_pipelines.traces import replayed_by


@dataclass(frozen=True)
class LoadStage:
    """One stage as the spec asks for it."""

    stage: int
    users: int | None
    """Concurrent users, or the requests of a burst; None where a schedule says when requests are due."""
    offered_per_s: float | None
    """Requests offered per stack second, where a schedule says when they are due: on the mean of the stage."""
    hold_s: float
    min_requests: int
    """How many must begin and end in it; of a trace all."""
    max_hold_s: float
    points: list[tuple[float, float]] | None = None
    """Of a rate that changes: (stack seconds, requests per stack second)."""


def load_stages(step: LoadStep, pace: Pace, *, trial: int = 1) -> list[LoadStage]:
    """The stages of `step` at `pace`; each turn, the `trial`, draws its own arrivals.

    `max_users` leaves out the high stages of a ramp. A burst doesn't hold: it ends with its last request. A rate
    profile and a trace hold for their own time, and every request that is due in it counts. Raises `ValueError` when no
    stage is left, when such a time is longer than the pace's `max_hold_s`, and for a trace that can't be read.
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
        case RateProfile() as profile:
            points = profile.walked
            hold_s = _within(step, points[-1][0], pace)
            due = requests_within(points, profile.arrivals, profile.burstiness, step=step.name, stage=0, trial=trial)
            needed = min(pace.min_requests, due)
            return [LoadStage(0, None, profile.mean_per_s, hold_s, needed, pace.max_hold_s, points)]
        case TraceReplay() as profile:
            [request] = step.requests
            assert isinstance(request, TracedRequest)
            trace = replayed_by(profile, request)
            hold_s = _within(step, trace.length_s / profile.speed, pace)
            offered_per_s = round(trace.per_s * profile.speed, 9)
            return [LoadStage(0, None, offered_per_s, hold_s, len(trace.rows), pace.max_hold_s)]


def _within(step: LoadStep, seconds: float, pace: Pace) -> float:
    """The seconds, unless a stage of the pace would be cut before they are over."""
    if seconds > pace.max_hold_s:
        shorter = "speed, or shorten duration_s" if isinstance(step.profile, TraceReplay) else "max_hold_s"
        raise ValueError(
            f"{step.name}: its load takes {seconds:g} s, and a stage ends after the pace's max_hold_s of "
            f"{pace.max_hold_s:g} s at the latest; raise {shorter}"
        )
    return seconds
