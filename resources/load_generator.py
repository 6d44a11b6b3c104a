"""The contract of a load generator: apply a load step to a session and bring back one record per request.

Belongs here: the plan that a generator is given, the records that it returns, the abstract `LoadGenerator`.
Doesn't belong here: Locust's processes (load_locust.py, load_cluster.py), what runs inside them (load-tests/locust/).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Literal

from dagster import ConfigurableResource
from pydantic import BaseModel, ConfigDict, Field, model_validator
from streaming_load.traces import TraceFormat

from lab_pipelines.catalog.steps import Arrivals, TextKind
from resources.cluster import Endpoint, Progress

Outcome = Literal["ok", "http_error", "timeout", "connection_error", "stream_error", "cut"]
Profile = Literal["ramp", "constant", "burst", "rate", "rate_profile", "trace"]
CLOSED: frozenset[Profile] = frozenset({"ramp", "constant"})
"""Profiles whose users wait for an answer before they send again; all others are open loops."""


class LoadError(RuntimeError):
    """The load could not be applied. The message says what the generator reported and what to do."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CompletionShape(Record):
    """A streamed completion with exact token counts."""

    kind: Literal["completion"] = "completion"
    weight: float = 1.0
    prompts: str
    """Path of the fixture, relative to the repository: JSON with `prompts`, a list of lists of token ids."""
    input_tokens: int
    output_tokens: int
    temperature: float
    timeout_wall_s: float
    shared_prefix_tokens: int = 0
    """Tokens that all prompts of the shape begin with: those of the fixture's first one."""
    text: TextKind = "prose"
    truncate_to: int | None = None
    """The server is asked to keep so many of the prompt's last tokens."""
    expect: int = 200
    """The status of a success."""


class HttpShape(Record):
    """A plain GET of `path` below the base URL; an answer with the status `expect` is a success."""

    kind: Literal["http"] = "http"
    weight: float = 1.0
    path: str
    expect: int
    timeout_wall_s: float


class TracedShape(Record):
    """A streamed completion whose counts of tokens are those of its row in the plan's trace."""

    kind: Literal["traced"] = "traced"
    weight: float = 1.0
    temperature: float
    timeout_wall_s: float
    text: TextKind = "prose"


Shape = Annotated[CompletionShape | HttpShape | TracedShape, Field(discriminator="kind")]


class TracePlan(Record):
    """Which part of which trace is replayed. The rows themselves don't travel: every process reads the file."""

    file: str
    """Relative to the repository."""
    format: TraceFormat
    start_s: float
    """Trace seconds after the trace's first request."""
    duration_s: float | None
    """Trace seconds; None: to the end."""
    per_wall_s: float
    """Trace seconds per wall second."""
    max_input_tokens: int
    max_output_tokens: int
    """Longer prompts and answers are clipped to these."""
    clipped: int
    """How many requests were."""
    digest: str
    """Of the rows; a process whose file gives others refuses the plan."""


class StagePlan(Record):
    """One stage of a load. Times are wall seconds: the plan is executed on a real clock."""

    stage: int
    users: int | None
    """Concurrent users; requests at once of a burst; None at a rate, where nobody waits for an answer."""
    per_wall_s: float | None = None
    """Requests offered per wall second, of a rate that changes and of a trace on the mean; only where a schedule says
    when requests are due over a time."""
    hold_wall_s: float
    min_requests: int
    max_hold_wall_s: float
    points: list[tuple[float, float]] | None = None
    """Of a `rate_profile`: (wall seconds, requests per wall second), straight from each to the next. Two at one time
    are a jump; after the last one its rate goes on."""


class LoadPlan(Record):
    """Everything that the processes which apply the load need to know; it travels as JSON.

    `ramp` and `constant` are closed loops: each of a stage's users sends its next request when the last one has ended.
    All others are open ones: requests are sent at their scheduled times, whatever became of the earlier ones.
    """

    run_id: str
    trial: int = 1
    """Which of the run's turns it belongs to: each draws its own arrivals and prompts, the same for all variants."""
    step: str
    base_url: str
    """An OpenAI base URL, ending in /v1, for completions; an HTTP server's root for plain GETs."""
    model: str | None
    profile: Profile
    arrivals: Arrivals = "even"
    """How the requests of a rate are spaced. Those that are drawn are the same in every run of a step, and
    others in each of its turns."""
    burstiness: float | None = None
    """The shape of gamma arrivals' gaps: 1 is Poisson, less is burstier."""
    trace: TracePlan | None = None
    max_in_flight: int | None = None
    """Requests of an open loop that may be open at once; one beyond waits, and its latency counts from its schedule."""
    shapes: list[Shape] = Field(min_length=1)
    """What is sent, mixed by weight in a fixed order (load-tests/locust/streaming_load/schedule.py)."""
    stages: list[StagePlan] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> LoadPlan:
        if len({shape.kind == "http" for shape in self.shapes}) > 1:
            raise ValueError("shapes: completions and plain GETs can't be mixed in one plan")
        if self.request_kind == "completion" and self.model is None:
            raise ValueError("model: a completion needs one, and the stack has no engine")
        over_time = self.profile not in CLOSED | {"burst"}
        if any((stage.users is None) != over_time for stage in self.stages):
            raise ValueError("stages: users belong to the profiles `ramp`, `constant` and `burst`, and to them alone")
        if any((stage.per_wall_s is None) == over_time for stage in self.stages):
            raise ValueError("stages: per_wall_s belongs to the profiles `rate`, `rate_profile` and `trace` alone")
        if any((stage.points is not None) != (self.profile == "rate_profile") for stage in self.stages):
            raise ValueError("stages: points belong to the profile `rate_profile`, and to it alone")
        if (self.max_in_flight is None) == (self.profile not in CLOSED):
            raise ValueError("max_in_flight: belongs to open loops, and to them alone")
        if len({self.profile == "trace", self.trace is not None, *(s.kind == "traced" for s in self.shapes)}) > 1:
            raise ValueError("trace: the profile `trace`, a trace and a shape of kind `traced` belong together")
        if (self.burstiness is None) == (self.arrivals == "gamma"):
            raise ValueError("burstiness: belongs to gamma arrivals, and these need it")
        return self

    @property
    def request_kind(self) -> Literal["completion", "http"]:
        return "http" if self.shapes[0].kind == "http" else "completion"

    def found_from_anywhere(self, root: Path) -> LoadPlan:
        """With the absolute paths of its files, which lie below `root`: processes of a load run in other folders."""
        shapes = [
            shape.model_copy(update={"prompts": str(root / shape.prompts)})
            if isinstance(shape, CompletionShape)
            else shape
            for shape in self.shapes
        ]
        trace = self.trace and self.trace.model_copy(update={"file": str(root / self.trace.file)})
        return self.model_copy(update={"shapes": shapes, "trace": trace})


class RequestRecord(Record):
    """One request as the client saw it. Offsets are wall seconds from `scheduled_at`; `_at` is Unix time in seconds."""

    request_id: str
    worker: str
    user_index: int | None
    """None at a rate, where nobody waits for an answer."""
    shape: int
    """Which of the plan's shapes it had."""
    stage: int
    """The stage in which it was sent; of an open loop, for which it was scheduled."""
    in_stage: bool
    """It finished before that stage ended."""
    counted: bool
    """It belongs to the stage's sample. False for what an open loop sends to keep its load up while those that count
    come to their end."""
    asked_tokens: tuple[int, int] | None = None
    """Tokens in and out that it asked for, where these aren't its shape's: in a trace."""
    scheduled_at: float
    sent_offset_s: float
    finished_offset_s: float
    """When the last byte, the error or the cut came."""
    event_offsets_s: list[float]
    """Arrival of each streamed event that carries tokens, in order. Empty for a plain GET."""
    input_tokens: int | None
    output_tokens: int | None
    """The server's usage; None where it gave none, and for a plain GET."""
    outcome: Outcome
    http_status: int | None
    finish_reason: str | None
    error: str | None
    server_ttft_s: float | None
    """Request received to first event sent, on the server's clock; None where the server doesn't stamp."""
    receive_lag_p99_s: float | None
    """Event sent to event received; None unless both share one clock (one machine)."""
    first_receive_lag_s: float | None = None
    """The same of the first event alone: the client's part in the TTFT's error."""
    client_lag_s: float | None = None
    """How much later it was taken up than it could have been: without the waits for a place among the `max_in_flight`
    and for a connection, which are the server's doing. None: it never got a place, or nobody kept count."""


class StageRecord(Record):
    """One stage as it was applied. `_at` is Unix time in seconds."""

    stage: int
    users: int | None
    started_at: float
    ended_at: float
    client_cpu_share: float | None
    """Of all load processes together, in cores."""
    busiest_cpu_share: float | None = None
    """Of the one that used most."""
    cpu_samples: int = 0
    """How many samples of that one's CPU time this comes from: those within the stage, and one on either side of it."""
    event_loop_lag_p99_s: float | None = None
    """How late an event would have been noticed, of the process that was latest. None: not sampled."""
    event_loop_probes: int = 0
    """How many samples of that process there are."""


class LoadResult(Record):
    requests: list[RequestRecord]
    stages: list[StageRecord]
    no_client: str | None = None
    """Why there is no client whose error could be told; None: there is one."""


class LoadGenerator(ConfigurableResource, ABC):
    """Applies a plan. Everything it starts is gone when `run` returns or raises."""

    def address(self, endpoint: Endpoint) -> str | None:
        """Where the processes that this generator starts reach an endpoint: what a plan's `base_url` must be."""
        return endpoint.base_url

    @abstractmethod
    def run(self, plan: LoadPlan, *, workdir: Path, environ: dict[str, str], progress: Progress) -> LoadResult:
        """Apply `plan` from start to end.

        `workdir` holds the generator's own files (plan, logs, records) and is kept for diagnosis. `environ` is
        added to its processes' environment, so that a reaper can tell whose they are. Raises `LoadError`.
        """
