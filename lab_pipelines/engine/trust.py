"""How far the engine model can be trusted for one engine: the range of trust.yaml, or what lies outside of it.

Belongs here: comparing an engine's set-up with that range. Doesn't belong here: how the range was found
(benchmarks/calibration).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.catalog.steps import CompletionRequest, LoadStep, Request, Step, TracedRequest
from lab_pipelines.engine import tables
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import WeightFormat

OUTSIDE_ERROR = 0.4
"""Error that a plan reckons with where nothing was compared: an estimate, and no more (confidence C)."""


@dataclass(frozen=True)
class Trust:
    """`says` is for a person. `users` is the largest concurrency of the range, None outside of it."""

    inside: bool
    says: str
    users: int | None
    error: float
    """Relative error of latencies and throughput that must be reckoned with."""

    @property
    def model_range(self) -> str:
        """As rows have it."""
        return "inside" if self.inside else f"outside: {self.says}"


class _Between(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    least: float
    most: float


class _Range(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    gpus: list[str]
    weights: list[WeightFormat]
    parameters: _Between
    gpus_per_engine: int
    context_tokens: int
    users: int
    error: float = Field(gt=0, lt=1)
    compared_with: str


class _Ranges(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    ranges: list[_Range]


@cache
def _ranges() -> list[_Range]:
    return read_model(tables.TABLES_DIR / "trust.yaml", _Ranges).ranges


def trust_of(model: EngineModel, *, context: int) -> Trust:
    """Whether `model` lies within a range, and if not, what keeps it out of the nearest one.

    `context`: the longest sequence that it will be asked for, prompt and answer (see `longest_sequence`).
    """
    context = min(context, model.args.max_model_len)
    kept_out = {index: _kept_out(model, context, one) for index, one in enumerate(_ranges())}
    # A range of the same GPU is nearer than any other: what it lacks is what this engine lacks.
    nearest = min(kept_out, key=lambda index: (model.hardware.name not in _ranges()[index].gpus, len(kept_out[index])))
    if kept_out[nearest]:
        return Trust(
            False, f"no public measurement was compared with {'; '.join(kept_out[nearest])}", None, OUTSIDE_ERROR
        )
    inside = _ranges()[nearest]
    return Trust(
        True,
        f"within {inside.error:.0%} of {inside.compared_with}, up to {inside.users} requests at once",
        inside.users,
        inside.error,
    )


def longest_sequence(steps: Iterable[Step]) -> int:
    """Tokens of the longest request that the steps of a lab send, prompt and answer; 0 without any."""
    requests = [request for step in steps if isinstance(step, LoadStep) for request in step.requests]
    return max((_tokens(request) for request in requests), default=0)


def _tokens(request: Request) -> int:
    """The most that one of them has; 0 for one that the engine doesn't serve."""
    match request:
        case CompletionRequest() if request.expect < 400:
            kept = min(request.input_tokens, request.truncate_to or request.input_tokens)
            return kept + request.output_tokens
        case TracedRequest():
            return request.max_input_tokens + request.max_output_tokens
        case _:
            return 0


def _kept_out(model: EngineModel, context: int, one: _Range) -> list[str]:
    """Measured were engines as vLLM sets them up by itself: every option beside that is outside."""
    args, parameters = model.args, model.args.model.parameters.value
    reasons = {
        f"a {model.hardware.product}": model.hardware.name not in one.gpus,
        f"weights in {args.model.weights}": args.model.weights not in one.weights,
        f"{parameters / 1e9:.3g}B parameters": not one.parameters.least <= parameters <= one.parameters.most,
        f"{args.gpus} GPUs for one engine": args.gpus > one.gpus_per_engine,
        f"sequences of {context} tokens": context > one.context_tokens,
        "speculation": args.draft is not None,
        "prefix caching": args.prefix_caching,
        "KV offloading": args.offload_bytes > 0,
        "eager mode": args.eager,
        "static batching": args.static_batching,
        "prompts in one piece": not args.chunked_prefill,
    }
    return [reason for reason, holds in reasons.items() if holds]
