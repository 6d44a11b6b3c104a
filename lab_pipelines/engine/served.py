"""A request with the times that its server knows of: what the pacer, the replica and the observer share.

Doesn't belong here: who reads the tokens (pacer.py), or what is told of them (observer.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

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
