"""When a GPU node pool may go to zero: one pure decision, its inputs, and what it remembers from tick to tick.

Belongs here: the rules, their order and their words. Doesn't belong here: reading pools, leases or signals
(lab_pipelines/sensors/gpu_scale_to_zero.py), what other settings would have done (gpu_replay.py), pools whose lease
is over (resources/pool_leases.py).

Doubt keeps a pool: whatever is missing, old, partial, held, changing or not ours is a reason to keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lab_pipelines.catalog.loader import read_model

Mode = Literal["off", "dry-run", "on"]
Action = Literal["keep", "scale_to_zero"]
Use = Literal["idle", "busy", "unknown"]
Rule = Literal[
    "off", "not_ours", "system_pool", "at_zero", "leased", "changing", "autoscaled", "signal_missing", "in_use",
    "not_idle_long_enough", "cooling_down", "cold_start_dearer", "tick_full", "idle",
]  # fmt: skip
"""Which rule decided. Only `idle` acts."""

POLICY_FILE = Path(__file__).with_suffix(".yaml")
SETTLED = frozenset({"Succeeded", "Failed", "Canceled"})
"""Azure's provisioning states in which no operation is under way; in any other, somebody is changing the pool."""
GAPS_KEPT = 20
"""Former idle times that a pool's history remembers."""
CLOCK_SKEW_S = 5.0
"""By how much Prometheus's clock may run ahead of this one; a sample from further ahead can't be dated."""


class Threshold(BaseModel):
    """A signal begins to be idle at `idle_at_most` and busy at `busy_at_least`; in between it stays what it was."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    idle_at_most: float = Field(ge=0)
    busy_at_least: float = Field(gt=0)

    @model_validator(mode="after")
    def _apart(self) -> Threshold:
        if self.idle_at_most >= self.busy_at_least:
            raise ValueError("idle_at_most must be below busy_at_least, or a pool could be idle and busy at once")
        return self


class GpuPolicy(BaseModel):
    """The settings of the decision; gpu_policy.yaml says what each is for. Times are in seconds."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    idle_for_s: float = Field(gt=0)
    cooldown_s: float = Field(ge=0)
    max_signal_age_s: float = Field(gt=0)
    max_tick_gap_s: float = Field(gt=0)
    min_signals: int = Field(ge=2, le=2)
    """Two, which is all there are: a single one can be wrong by itself."""
    most_actions_per_tick: int = Field(ge=1)
    requests: Threshold
    utilisation: Threshold
    cold_start_margin: float = Field(ge=1)
    assumed_cold_start_s: float = Field(gt=0)
    min_gaps: int = Field(ge=2)


@cache
def load_policy(path: Path = POLICY_FILE) -> GpuPolicy:
    """The policy in `path`. Raises `SpecError` that names file, line and field."""
    return read_model(path, GpuPolicy)


@dataclass(frozen=True)
class Signal:
    """One measure of a pool's use, as the monitoring has it."""

    value: float | None
    """None: there is no such series."""
    age_s: float | None
    """Of the oldest sample that `value` rests on."""
    reporting: int
    """How many of `expected` it was heard from: engines for requests, nodes for GPUs."""
    expected: int


NO_SIGNAL = Signal(value=None, age_s=None, reporting=0, expected=0)


@dataclass(frozen=True)
class PoolState:
    """A pool as it was read, in what matters to the decision."""

    name: str
    vm_size: str
    mode: str
    """`User`, or `System`, which can't reach zero."""
    count: int
    ours: bool
    autoscaled: bool
    spot: bool
    state: str
    usd_per_h: Decimal | None
    """Of all its nodes together; None: no price is known."""


@dataclass(frozen=True)
class Hold:
    """A lease that holds the pool until `until`."""

    lab: str
    lease_id: str
    until: datetime


@dataclass(frozen=True)
class ColdStart:
    """How long the next one will take, and how that is known."""

    seconds: float
    source: str


@dataclass(frozen=True)
class History:
    """What is remembered of one pool between ticks."""

    seen_at: datetime
    count: int
    idle_since: datetime | None = None
    """Kept while the pool is at zero, since the idle time goes on until the pool is asked for again."""
    changed_at: datetime | None = None
    """When its size was last seen to change. None: never."""
    gaps_s: tuple[float, ...] = ()
    """Its former idle times that came to an end, oldest first."""


@dataclass(frozen=True)
class Observation:
    """Everything that one decision rests on."""

    pool: PoolState
    holds: tuple[Hold, ...]
    requests: Signal
    """Requests running and waiting on all engines of the pool, the most within the last looks."""
    utilisation: Signal
    """Percent, of the busiest GPU of the pool, the most within the last looks."""
    signals_gap: str | None
    """Why the monitoring could not be asked; None: it answered."""
    history: History
    """With this tick already in it (`advance`)."""
    cold_start: ColdStart


@dataclass(frozen=True)
class Decision:
    observation: Observation
    action: Action
    rule: Rule
    reason: str
    """In words, for a person."""
    idle_for_s: float | None
    expected_idle_s: float | None
    """How much longer the pool would probably stay idle; None: it isn't."""
    expected_idle_source: str | None


def use_of(requests: Signal, utilisation: Signal, policy: GpuPolicy, *, was_idle: bool) -> tuple[Use, str]:
    """What the signals say together, and why. A single busy one is enough; idle takes all of them, each fresh."""
    named = {"requests": (requests, policy.requests), "GPU utilisation": (utilisation, policy.utilisation)}
    problems = {name: _problem(signal, policy) for name, (signal, _) in named.items()}
    for name, (signal, threshold) in named.items():
        if problems[name] is None and signal.value is not None and signal.value >= threshold.busy_at_least:
            return "busy", f"{name}: {signal.value:g}"
    missing = [f"{name}: {problem}" for name, problem in problems.items() if problem]
    if len(named) - len(missing) < policy.min_signals:
        return "unknown", "; ".join(missing)
    between = [
        f"{name}: {signal.value:g}"
        for name, (signal, threshold) in named.items()
        if signal.value is not None and signal.value > threshold.idle_at_most
    ]
    if between and not was_idle:
        return "busy", "; ".join(between)
    return "idle", "no requests, no work on a GPU"


def _problem(signal: Signal, policy: GpuPolicy) -> str | None:
    """Why a signal can't be believed, or None."""
    if signal.value is None or signal.age_s is None:
        return "no sample"
    if signal.reporting < signal.expected:
        return f"{signal.reporting} of {signal.expected} report"
    if not -CLOCK_SKEW_S <= signal.age_s <= policy.max_signal_age_s:
        return f"a sample {signal.age_s:.0f} s old, at most {policy.max_signal_age_s:.0f} s allowed"
    return None


def advance(
    before: History | None, pool: PoolState, requests: Signal, utilisation: Signal, *, policy: GpuPolicy, now: datetime
) -> History:
    """The pool's history after this tick. An idle time that was not watched throughout begins anew."""
    if before is None:
        # Nobody knows when its size changed last, so the cooldown runs from now: a daemon that starts waits.
        before = History(seen_at=now, count=pool.count, changed_at=now)
    changed_at = now if pool.count != before.count else before.changed_at
    if pool.count == 0:
        return replace(before, seen_at=now, count=0, changed_at=changed_at)
    unwatched = now - before.seen_at > timedelta(seconds=policy.max_tick_gap_s)
    since, gaps = before.idle_since, before.gaps_s
    if before.count == 0:  # it is asked for again: that is the end of the idle time that had brought it to zero
        gaps, since = _with_gap(gaps, since, now), None
    elif unwatched:
        since = None
    use, _ = use_of(requests, utilisation, policy, was_idle=since is not None)
    if use == "idle":
        since = since or now
    elif use == "busy":
        gaps, since = _with_gap(gaps, since, now), None
    else:
        since = None
    return History(seen_at=now, count=pool.count, idle_since=since, changed_at=changed_at, gaps_s=gaps)


def _with_gap(gaps: tuple[float, ...], since: datetime | None, now: datetime) -> tuple[float, ...]:
    return gaps if since is None else (*gaps, (now - since).total_seconds())[-GAPS_KEPT:]


def expected_idle(idle_s: float, gaps_s: Sequence[float], *, min_gaps: int) -> tuple[float, str]:
    """How much longer a pool that has been idle for `idle_s` will be so, in seconds, and how that is known.

    The mean residual of its own former idle times that lasted longer. With too few of them: as long again as it has
    been idle. A pool then goes to zero once the idle time has cost as much as a cold start, the break-even rule of ski
    rental, which never pays more than twice what foresight would have (Karlin, Manasse, Rudolph and Sleator,
    "Competitive snoopy caching", Algorithmica 3, 1988).
    """
    longer = [gap - idle_s for gap in gaps_s if gap > idle_s]
    if len(longer) < min_gaps:
        return idle_s, "as long again as it has been idle"
    return sum(longer) / len(longer), f"mean of {len(longer)} former idle times that lasted longer"


def decide(seen: Observation, *, policy: GpuPolicy, mode: Mode, now: datetime) -> Decision:
    """What to do with one pool. The first rule that applies decides."""
    since = seen.history.idle_since
    idle_s = None if since is None or seen.pool.count == 0 else (now - since).total_seconds()
    more_s, source = (
        (None, None) if idle_s is None else expected_idle(idle_s, seen.history.gaps_s, min_gaps=policy.min_gaps)
    )
    rule, reason = (
        _never(seen, mode, now)
        or _in_use(seen, policy)
        or _too_soon(seen, policy, now, idle_s or 0.0)
        or _not_worth_it(seen, policy, more_s or 0.0)
        or ("idle", f"idle for {idle_s or 0:.0f} s; expected {more_s or 0:.0f} s more ({source})")
    )
    action: Action = "scale_to_zero" if rule == "idle" else "keep"
    return Decision(seen, action, rule, reason, idle_s, more_s, source)


def decide_tick(seen: Sequence[Observation], *, policy: GpuPolicy, mode: Mode, now: datetime) -> list[Decision]:
    """The decisions of one tick, in the order of `seen`. At most `most_actions_per_tick` act, the dearest first."""
    decisions = [decide(one, policy=policy, mode=mode, now=now) for one in seen]
    acting = [decision for decision in decisions if decision.action == "scale_to_zero"]
    acting.sort(key=lambda one: (-(one.observation.pool.usd_per_h or 0), one.observation.pool.name))
    postponed = {one.observation.pool.name for one in acting[policy.most_actions_per_tick :]}
    said = f"idle, but {policy.most_actions_per_tick} pools a tick are the most; the next tick looks again"
    return [
        replace(one, action="keep", rule="tick_full", reason=said) if one.observation.pool.name in postponed else one
        for one in decisions
    ]


_Verdict = tuple[Rule, str]


def _never(seen: Observation, mode: Mode, now: datetime) -> _Verdict | None:
    """What keeps a pool whatever it is doing."""
    pool = seen.pool
    last = max((hold for hold in seen.holds if hold.until > now), key=lambda hold: hold.until, default=None)
    held = f"{last.lab} holds it until {last.until:%Y-%m-%d %H:%M:%S} UTC" if last else ""
    rules: list[tuple[bool, Rule, str]] = [
        (mode == "off", "off", "the sensor is switched off"),
        (not pool.ours, "not_ours", "it lacks the tag lab-pipelines=managed"),
        (pool.mode != "User", "system_pool", f"a {pool.mode} pool can't reach zero"),
        (pool.count == 0, "at_zero", "it has no nodes"),
        (last is not None, "leased", held),
        (pool.state not in SETTLED, "changing", f"its state is {pool.state}: an operation is under way"),
        (pool.autoscaled, "autoscaled", "its autoscaler decides its size; let that reach zero, or turn it off"),
    ]
    return next(((rule, reason) for applies, rule, reason in rules if applies), None)


def _in_use(seen: Observation, policy: GpuPolicy) -> _Verdict | None:
    use, why = use_of(seen.requests, seen.utilisation, policy, was_idle=seen.history.idle_since is not None)
    if use == "unknown":
        return "signal_missing", f"{why}{f' ({seen.signals_gap})' if seen.signals_gap else ''}"
    return ("in_use", why) if use == "busy" else None


def _too_soon(seen: Observation, policy: GpuPolicy, now: datetime, idle_s: float) -> _Verdict | None:
    if idle_s < policy.idle_for_s:
        return "not_idle_long_enough", f"idle for {idle_s:.0f} s of {policy.idle_for_s:.0f} s"
    if seen.history.changed_at is not None:
        since_s = (now - seen.history.changed_at).total_seconds()
        if since_s < policy.cooldown_s:
            return "cooling_down", f"its size changed {since_s:.0f} s ago; {policy.cooldown_s:.0f} s must have passed"
    return None


def _not_worth_it(seen: Observation, policy: GpuPolicy, expected_idle_s: float) -> _Verdict | None:
    """Compare what the pool would cost idle with what its next cold start costs.

    Both are node time at the same price: nodes are billed from their request on, and serve nothing until the first
    token. So seconds are compared, and a pool whose price is unknown can be decided too.
    """
    needed_s = seen.cold_start.seconds * policy.cold_start_margin
    if expected_idle_s > needed_s:
        return None
    return (
        "cold_start_dearer",
        f"expected {expected_idle_s:.0f} s more of idle time, and the next cold start costs {needed_s:.0f} s "
        f"({seen.cold_start.source})",
    )
