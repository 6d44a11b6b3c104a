"""What a lab does to its stack, step by step: load profiles, the requests that they send, manifests, alerts, waits.

Belongs here: the shape of one step, and every rule that it must keep by itself. Doesn't belong here: the lab that its
names refer to (spec.py), or doing it (assets/steps.py).

Durations are in stack seconds, as in spec.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from streaming_load.traces import TraceFormat

from lab_pipelines.catalog.fields import Overrides, RelativePath, below, checked_promql, regular_expression
from lab_pipelines.catalog.strict import Name, SpecModel, Text, matching
from lab_pipelines.deployment import Target

TextKind = Literal["prose", "code", "numbers"]
"""What an output consists of: how well a draft guesses it depends on that."""


class CompletionRequest(SpecModel):
    """A streamed completion: exact token counts, prompts from a fixture of token ids.

    Each prompt is unlike every other from its first token on, so that a prefix cache finds nothing, but for the first
    `shared_prefix_tokens`, which all requests of the shape have in common. `truncate_to` asks the server to keep the
    last so many tokens of the prompt. An answer with the status `expect` is a success, also where that is an error's.
    """

    kind: Literal["completion"]
    weight: float = Field(default=1.0, gt=0)
    """Share of the requests that have this shape, relative to the other shapes of the step."""
    input_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    prompts: RelativePath
    shared_prefix_tokens: int = Field(default=0, ge=0)
    text: TextKind = "prose"
    truncate_to: int | None = Field(default=None, ge=1)
    expect: int = Field(default=200, ge=100, le=599)
    timeout_s: float = Field(gt=0)

    @field_validator("prompts")
    @classmethod
    def _inside_load_tests(cls, value: str) -> str:
        return below(value, "load-tests/")

    @model_validator(mode="after")
    def _something_is_its_own(self) -> CompletionRequest:
        if self.shared_prefix_tokens >= self.input_tokens:
            raise ValueError("shared_prefix_tokens: must leave a part of input_tokens that is the request's own")
        return self


class HttpRequest(SpecModel):
    """A plain GET. An answer with the status `expect` is a success, also where that is an error's status."""

    kind: Literal["http"]
    weight: float = Field(default=1.0, gt=0)
    path: Annotated[str, matching(r"^/[A-Za-z0-9_./?=&%-]*$", "a path that begins with /")]
    expect: int = Field(default=200, ge=100, le=599)
    timeout_s: float = Field(gt=0)


class TracedRequest(SpecModel):
    """A streamed completion for each request of a trace, with the trace's own counts of tokens.

    One whose prompt or answer is longer than the most is clipped to it: what the engine's context can't hold is sent
    shorter, counted in `load_stages.clipped_requests` and said, not refused.
    """

    kind: Literal["traced"]
    max_input_tokens: int = Field(ge=1)
    max_output_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    text: TextKind = "prose"
    timeout_s: float = Field(gt=0)


Request = Annotated[CompletionRequest | HttpRequest | TracedRequest, Field(discriminator="kind")]


class Ramp(SpecModel):
    """Closed loop: each stage holds a number of concurrent users, who send their next request at once."""

    kind: Literal["ramp"]
    users: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)


class Constant(SpecModel):
    """Closed loop with one stage."""

    kind: Literal["constant"]
    users: int = Field(ge=1)


class Burst(SpecModel):
    """All requests at the same moment; the stage ends when every one has ended."""

    kind: Literal["burst"]
    requests: int = Field(ge=1)


Arrivals = Literal["even", "poisson", "gamma"]


class Scheduled(SpecModel):
    """Open loop: requests are sent at their scheduled times whether or not earlier ones have ended."""

    max_in_flight: int = Field(default=512, ge=1)
    """Requests that may be open at once; a request beyond it waits, and its latency counts from its schedule."""


class Drawn(Scheduled):
    """Arrivals that follow a rate: evenly spaced, or drawn with a fixed seed: Poisson, or gamma, whose `burstiness` is
    the shape of the gaps' distribution: 1 is Poisson, less is burstier, down to 0.01. Far below, nearly every gap is
    shorter than any float, and a schedule comes to no end.
    """

    arrivals: Arrivals = "even"
    burstiness: float | None = Field(default=None, ge=0.01)

    @model_validator(mode="after")
    def _burstiness_belongs_to_gamma(self) -> Drawn:
        if (self.burstiness is None) == (self.arrivals == "gamma"):
            raise ValueError("burstiness: belongs to gamma arrivals, and these need it")
        return self


class Rate(Drawn):
    """Open loop at `per_s` requests per stack second, one stage each."""

    kind: Literal["rate"]
    per_s: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)


_MOST_REQUESTS = 1e7
"""Of a stage: every process walks through the whole schedule before the first request goes out."""


class RatePoint(SpecModel):
    """Requests per stack second at a time of a `rate_profile`."""

    at_s: float = Field(ge=0)
    """Stack seconds after the stage's start."""
    per_s: float = Field(ge=0)


class RateProfile(Drawn):
    """Open loop with one stage, whose rate goes straight from each point to the next: ramps, and bursts on and off.

    Two points at one time are a jump. The points are gone through `repeat` times, and the stage's sample is all that is
    due meanwhile; until that has ended the last rate goes on. Its times are the profile's own, whatever the pace's
    `hold_s`.
    """

    kind: Literal["rate_profile"]
    points: list[RatePoint] = Field(min_length=2)
    repeat: int = Field(default=1, ge=1, le=1000)

    @property
    def walked(self) -> list[tuple[float, float]]:
        """(Stack seconds, requests per stack second) of all repeats, one after the other."""
        length_s = self.points[-1].at_s
        return [(turn * length_s + point.at_s, point.per_s) for turn in range(self.repeat) for point in self.points]

    @property
    def expected_requests(self) -> float:
        """The integral of the rate: exactly so many, to the nearest whole one, where arrivals are even."""
        return sum((b.at_s - a.at_s) * (a.per_s + b.per_s) / 2 for a, b in pairwise(self.points)) * self.repeat

    @property
    def mean_per_s(self) -> float:
        """Rounded, so that the way to the wall clock and back leaves the same number."""
        return round(self.expected_requests / (self.points[-1].at_s * self.repeat), 9)

    @model_validator(mode="after")
    def _goes_on_in_time(self) -> RateProfile:
        times = [point.at_s for point in self.points]
        if times[0] != 0:
            raise ValueError(f"points: the first is at {times[0]:g} s; begin at 0")
        if times[-1] == 0:
            raise ValueError("points: all are at 0 s; end with one at the time that the profile takes")
        for before, after in pairwise(times):
            if after < before:
                raise ValueError(f"points: {after:g} s comes after {before:g} s; list them in the order of time")
        if any(times.count(at_s) > 2 for at_s in times):
            raise ValueError("points: three are at one time; two make a jump")
        if self.expected_requests < 1:
            raise ValueError(
                f"points: {self.expected_requests:g} requests in all; raise per_s, or the time between points"
            )
        if self.expected_requests > _MOST_REQUESTS:
            raise ValueError(
                f"points: {self.expected_requests:g} requests in all, and a stage has {_MOST_REQUESTS:g} at most; "
                "lower per_s, or the time between points"
            )
        return self


class TraceReplay(Scheduled):
    """Open loop with one stage: the requests of a trace, at its times and with its counts of tokens.

    `speed` is trace seconds per stack second. A window of the trace begins `start_s` after its first request and lasts
    `duration_s`, both in trace seconds; unset: to the end. The stage ends when the window is over and all its requests
    have ended. Its times are the trace's own, whatever the pace's `hold_s`.
    """

    kind: Literal["trace"]
    file: RelativePath
    format: TraceFormat
    speed: float = Field(default=1.0, gt=0)
    start_s: float = Field(default=0.0, ge=0)
    duration_s: float | None = Field(default=None, gt=0)

    @field_validator("file")
    @classmethod
    def _inside_traces(cls, value: str) -> str:
        return below(value, "load-tests/traces/")


Profile = Annotated[Ramp | Constant | Burst | Rate | RateProfile | TraceReplay, Field(discriminator="kind")]


class NamedStep(SpecModel):
    """What every step has. Its row in `events` carries `name`, start, end and outcome."""

    name: Name
    targets: list[Target] | None = Field(default=None, min_length=1)
    """Where it can be done; None: wherever the lab runs. On another target its event says `skipped`."""
    variants: list[Name] | None = Field(default=None, min_length=1)
    """The variants that it belongs to; None: all. To another variant there is no such step."""

    def is_of(self, variant: str) -> bool:
        """Whether a variant has this step."""
        return self.variants is None or variant in self.variants

    def can_be_done_on(self, target: Target) -> bool:
        return self.targets is None or target in self.targets


class LoadStep(NamedStep):
    """Send requests to a component by a profile; several request shapes are mixed by their weights."""

    kind: Literal["load"]
    component: Name = "vllm"
    profile: Profile
    requests: list[Request] = Field(min_length=1)

    @property
    def stage_users(self) -> list[int | None]:
        """Concurrent users of each stage; None for an open loop, where nobody waits for an answer."""
        match self.profile:
            case Ramp(users=users):
                return list(users)
            case Constant(users=users):
                return [users]
            case Burst(requests=requests):
                return [requests]
            case Rate(per_s=per_s):
                return [None] * len(per_s)
            case RateProfile() | TraceReplay():
                return [None]

    @property
    def loads(self) -> list[float]:
        """What each stage applies, as a finding names it: users, requests of a burst, or requests per second, of a rate
        that changes on the mean. Empty for a trace, whose one stage has no number of its own in the spec."""
        match self.profile:
            case Rate(per_s=per_s):
                return list(per_s)
            case RateProfile() as profile:
                return [profile.mean_per_s]
            case _:
                return [float(users) for users in self.stage_users if users is not None]

    @property
    def asks_for_tokens(self) -> bool:
        """Whether it sends completions, and no plain GETs."""
        return not isinstance(self.requests[0], HttpRequest)

    @model_validator(mode="after")
    def _one_kind_of_request(self) -> LoadStep:
        traced = [isinstance(request, TracedRequest) for request in self.requests]
        if any(traced) != isinstance(self.profile, TraceReplay) or (any(traced) and len(traced) > 1):
            raise ValueError("requests: a trace takes one request of kind `traced`, and no other profile takes any")
        if len({request.kind for request in self.requests}) > 1:
            raise ValueError("requests: completions and plain GETs can't be mixed in one step; write two steps")
        return self


class ExpectedPod(SpecModel):
    """Where a pod of the applied manifests must be within the step's time, and why if it is not running."""

    name: Name
    phase: Literal["Running", "Pending", "Succeeded", "Failed"]
    reason: Text | None = None
    """Regular expression that the scheduler's or the container's message must match."""

    @field_validator("reason")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return value if value is None else regular_expression(value)


class ApplyStep(NamedStep):
    """Apply a file of Kubernetes manifests to the lab's namespace and compare what becomes of it with expectations."""

    kind: Literal["apply"]
    manifests: RelativePath
    expect: Literal["accepted", "rejected"] = "accepted"
    reason: Text | None = None
    """For `rejected`: regular expression that the API server's message must match."""
    pods: list[ExpectedPod] = Field(default_factory=list)
    within_s: float = Field(default=120.0, gt=0)

    @field_validator("manifests")
    @classmethod
    def _inside_helm_values(cls, value: str) -> str:
        return below(value, "helm-values/")

    @model_validator(mode="after")
    def _reason_belongs_to_a_refusal(self) -> ApplyStep:
        if self.reason is not None:
            regular_expression(self.reason)
        if (self.expect == "rejected") != (self.reason is not None):
            raise ValueError("reason is required with `expect: rejected`, and belongs to it alone")
        if self.expect == "rejected" and self.pods:
            raise ValueError("pods: a rejected manifest brings none; remove them")
        return self


class Condition(SpecModel):
    """A comparison of one PromQL value."""

    promql: Text
    comparison: Literal["above", "below", "equals"]
    value: float

    @field_validator("promql")
    @classmethod
    def _has_selector(cls, value: str) -> str:
        return checked_promql(value, placeholders={"selector"})


class ObserveStep(NamedStep):
    """Wait until a condition holds; its event has the timestamps. That it never held in time is a result too."""

    kind: Literal["observe"]
    until: Condition
    within_s: float = Field(gt=0)


class RestartStep(NamedStep):
    """Restart a component, with other values if given: for an engine, another cold start, recorded phase by phase."""

    kind: Literal["restart"]
    component: Name
    values: Overrides = Field(default_factory=dict)


class StopStep(NamedStep):
    """Stop a component until a `start` step."""

    kind: Literal["stop"]
    component: Name


class StartStep(NamedStep):
    """Start a component that was stopped."""

    kind: Literal["start"]
    component: Name


class CollectLogsStep(NamedStep):
    """Bring a component's structured log lines since the stack came up into `log_lines`."""

    kind: Literal["collect_logs"]
    component: Name


class IdleStep(NamedStep):
    """Hold the stack without load: what a scale-to-zero, or an alert on idleness, has to notice."""

    kind: Literal["idle"]
    duration_s: float = Field(gt=0)


class ReclaimsStep(NamedStep):
    """Draw months of a pool's capacity while Azure reclaims its Spot nodes: rows of `capacity_spells`, in a time of
    their own that no clock waits for (lab_pipelines/reclaims.py).

    Each of the pool's nodes holds one replica. A Spot replica that was reclaimed is back after the wait for capacity
    and the session's own cold start. One scenario for each rate and each way of falling; the first is the lab's own,
    the others tell how much hangs on it.
    """

    kind: Literal["reclaims"]
    on_demand: int = Field(ge=0)
    spot: int = Field(ge=0)
    months: int = Field(ge=2)
    """Of 730 hours. Two at least: their differences are the interval."""
    requests_per_s: float = Field(gt=0)
    """What all replicas together are asked to serve, at any time."""
    reclaims_per_hour: list[Annotated[float, Field(gt=0)]] = Field(min_length=1)
    """Of one Spot node."""
    correlated: list[bool] = Field(min_length=1)
    """Whether some reclaims take every Spot node at once."""

    def rates_without(self, loads: Sequence[LoadStep]) -> list[float]:
        """Requests per second of one replica, of as many as may be up, that no load step applies."""
        applied = [rate for load in loads if isinstance(load.profile, Rate) for rate in load.profile.per_s]
        shares = [self.requests_per_s / up for up in range(1, self.on_demand + self.spot + 1)]
        return [share for share in shares if not any(math.isclose(share, rate, rel_tol=1e-6) for rate in applied)]

    @model_validator(mode="after")
    def _has_nodes(self) -> ReclaimsStep:
        if self.on_demand + self.spot == 0:
            raise ValueError("on_demand and spot: a pool without nodes serves nothing")
        return self


class FireAlertStep(NamedStep):
    """Cause a condition and wait for its alert: pending, firing, notified. `cause` is a step of its own."""

    kind: Literal["fire_alert"]
    alert: Annotated[str, matching(r"^[A-Za-z][A-Za-z0-9]*$", "an alert such as QueueDepthHigh")]
    cause: Annotated[LoadStep | RestartStep | StopStep | IdleStep, Field(discriminator="kind")]
    within_s: float = Field(gt=0)


AnyStep = (
    LoadStep
    | ApplyStep
    | ObserveStep
    | RestartStep
    | StopStep
    | StartStep
    | CollectLogsStep
    | FireAlertStep
    | IdleStep
    | ReclaimsStep
)
Step = Annotated[AnyStep, Field(discriminator="kind")]
"""One action of a lab, in the order of the spec."""
