"""The contract of a load generator: apply a load step to a session and bring back one record per request.

Belongs here: the plan that a generator is given, the records that it returns, the abstract `LoadGenerator`.
Doesn't belong here: Locust's process (load_locust.py) and what runs inside it (load-tests/locust/).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from dagster import ConfigurableResource
from pydantic import BaseModel, ConfigDict, Field

from resources.cluster import Progress

Outcome = Literal["ok", "http_error", "timeout", "connection_error", "stream_error", "cut"]


class LoadError(RuntimeError):
    """The load could not be applied. The message says what the generator reported and what to do."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StagePlan(Record):
    """One stage of a closed-loop ramp. Times are wall seconds: the plan is executed on a real clock."""

    stage: int
    users: int
    hold_wall_s: float
    min_requests: int
    max_hold_wall_s: float


class LoadPlan(Record):
    """Everything that the processes which apply the load need to know; it travels as JSON."""

    run_id: str
    step: str
    base_url: str
    model: str
    prompts: str
    """Path of the fixture, relative to the repository: JSON with `prompts`, a list of lists of token ids."""
    input_tokens: int
    output_tokens: int
    temperature: float
    timeout_wall_s: float
    stages: list[StagePlan] = Field(min_length=1)


class RequestRecord(Record):
    """One request as the client saw it. Offsets are wall seconds from `scheduled_at`; `_at` is Unix time in seconds."""

    request_id: str
    worker: str
    user_index: int
    stage: int
    """The stage in which it was sent."""
    in_stage: bool
    """It finished before that stage ended."""
    scheduled_at: float
    sent_offset_s: float
    finished_offset_s: float
    """When the last byte, the error or the cut came."""
    event_offsets_s: list[float]
    """Arrival of each streamed event that carries tokens, in order."""
    input_tokens: int | None
    output_tokens: int | None
    """The server's usage; None where it gave none."""
    outcome: Outcome
    http_status: int | None
    finish_reason: str | None
    error: str | None
    server_ttft_s: float | None
    """Request received to first event sent, on the server's clock; None where the server doesn't stamp."""
    receive_lag_p99_s: float | None
    """Event sent to event received; None unless both share one clock (one machine)."""


class StageRecord(Record):
    """One stage as it was applied. `_at` is Unix time in seconds."""

    stage: int
    users: int
    started_at: float
    ended_at: float
    client_cpu_share: float | None


class LoadResult(Record):
    requests: list[RequestRecord]
    stages: list[StageRecord]


class LoadGenerator(ConfigurableResource, ABC):
    """Applies a plan. Everything it starts is gone when `run` returns or raises."""

    @abstractmethod
    def run(self, plan: LoadPlan, *, workdir: Path, environ: dict[str, str], progress: Progress) -> LoadResult:
        """Apply `plan` from start to end.

        `workdir` holds the generator's own files (plan, logs, records) and is kept for diagnosis. `environ` is
        added to its processes' environment, so that a reaper can tell whose they are. Raises `LoadError`.
        """
