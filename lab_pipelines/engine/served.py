"""A request with the times that its server knows of, and what is said of it when it has ended.

Belongs here: what the pacer, the replica and the observer share.

Doesn't belong here: who reads the tokens (pacer.py), or what is told of them (observer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from lab_pipelines.engine.blocks import Key
from lab_pipelines.engine.core import Request

FinishReason = Literal["length", "stop"]


class Served(Request):
    """Times are seconds on the clock of whoever drives the engine; None until they have come."""

    __slots__ = ("arrived_s", "finish_reason", "first_token_s", "last_token_s", "max_tokens", "scheduled_s")

    def __init__(
        self,
        prompt_tokens: int,
        output_tokens: int,
        *,
        arrived_s: float,
        max_tokens: int | None = None,
        finish_reason: FinishReason = "length",
        hashes: Sequence[Key] = (),
    ) -> None:
        super().__init__(prompt_tokens, output_tokens, hashes=hashes)
        self.arrived_s = arrived_s
        self.max_tokens = output_tokens if max_tokens is None else max_tokens
        self.finish_reason: FinishReason = finish_reason
        self.scheduled_s: float | None = None
        """When it first joined a step."""
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        """Of its newest token; while it decodes in step with others, of the token before its preemption."""


S = TypeVar("S", bound=Served)


@dataclass(frozen=True)
class Finished:
    """One request that ended, in stack seconds: what a log line says of it."""

    request_id: str
    model: str
    finished_reason: FinishReason | Literal["abort"]
    prompt_tokens: int
    output_tokens: int
    queue_s: float | None
    ttft_s: float | None
    """None: it was aborted before its first token."""
    e2e_s: float
    output_tokens_per_s: float | None
    """After the first."""
    preemptions: int

    @classmethod
    def of(
        cls,
        request: Served,
        *,
        request_id: str,
        model: str,
        reason: FinishReason | Literal["abort"],
        output_tokens: int,
        ended_s: float,
        scale: float = 1.0,
    ) -> Finished:
        """`ended_s` is on the request's own clock, of whose seconds each is `scale` stack seconds."""
        ttft_s = _between(request.arrived_s, request.first_token_s, scale)
        e2e_s = (ended_s - request.arrived_s) * scale
        decode_s = None if ttft_s is None else e2e_s - ttft_s
        return cls(
            request_id=request_id,
            model=model,
            finished_reason=reason,
            prompt_tokens=request.prompt_tokens,
            output_tokens=output_tokens,
            queue_s=_between(request.arrived_s, request.scheduled_s, scale),
            ttft_s=ttft_s,
            e2e_s=e2e_s,
            output_tokens_per_s=(output_tokens - 1) / decode_s if decode_s else None,
            preemptions=request.preemptions,
        )

    def log_fields(self) -> dict[str, Any]:
        """Level, event and fields of its line in the server's log."""
        fields = {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}
        level = "warning" if self.finished_reason == "abort" else "info"
        return {"level": level, "event": "request_finished", **fields}


def _between(start_s: float, end_s: float | None, scale: float) -> float | None:
    return None if end_s is None else (end_s - start_s) * scale
