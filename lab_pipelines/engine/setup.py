"""From vLLM's arguments and a GPU to an engine: the one place that puts memory, limits and cost together.

Belongs here: `EngineModel`. Doesn't belong here: driving the engine (pacer.py, replica.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.catalog.steps import TextKind
from lab_pipelines.engine import tables
from lab_pipelines.engine.args import EngineArgs, parse_engine_args
from lab_pipelines.engine.core import Engine, Limits, Request
from lab_pipelines.engine.memory import MemoryPlan, plan_memory
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.tables import Hardware

R = TypeVar("R", bound=Request)


@dataclass(frozen=True)
class EngineModel:
    """One server's engine as it would be configured: what it may hold, and what its steps cost."""

    hardware: Hardware
    gpus: int
    """That it uses."""
    args: EngineArgs
    memory: MemoryPlan
    limits: Limits
    cost: StepCost

    @classmethod
    def of(cls, arguments: Sequence[str], gpu: str, gpus: int = 1) -> EngineModel:
        """The engine of `vllm serve` with `arguments` on a node with `gpus` of `gpu`.

        Raises `EngineArgsError`, `GpuMemoryError` or `UnknownNameError`.
        """
        hardware = tables.hardware(gpu)
        args = parse_engine_args(arguments, hardware, gpus)
        draft = args.draft
        models = [args.model, *([draft.model] if draft and draft.model else [])]
        memory = plan_memory(
            hardware,
            models,
            utilization=args.gpu_memory_utilization,
            max_model_len=args.max_model_len,
            shards=args.gpus,
            eager=args.eager,
            offload_bytes=args.offload_bytes,
        )
        limits = Limits(
            kv_blocks=memory.kv_blocks,
            max_model_len=args.max_model_len,
            max_num_seqs=args.max_num_seqs,
            max_num_batched_tokens=args.max_num_batched_tokens,
            chunked_prefill=args.chunked_prefill,
            prefix_caching=args.prefix_caching,
            offload_blocks=memory.offload_blocks,
            draft_tokens=draft.tokens if draft else 0,
            static_batching=args.static_batching,
        )
        cost = StepCost(
            hardware,
            args.model,
            tensor=args.tensor_parallel,
            pipeline=args.pipeline_parallel,
            eager=args.eager,
            drafts=draft.tokens if draft else 0,
            draft_model=draft.model if draft else None,
        )
        return cls(hardware, args.gpus, args, memory, limits, cost)

    @property
    def used_bytes(self) -> float:
        """Memory of each GPU that the server takes at start-up and keeps."""
        return self.hardware.memory_bytes.value * self.args.gpu_memory_utilization

    def engine(self, accepted: Callable[[R], int] | None = None) -> Engine[R]:
        """A new engine; `accepted` as `Engine` says, needed exactly where there is a draft."""
        return Engine(self.limits, self.cost.step_s, accepted)

    def acceptance(self, text: TextKind) -> float:
        """How likely the target accepts one more token of a draft, for an output of that kind; 0 without drafts."""
        return acceptance(self.args.draft.method, text) if self.args.draft else 0.0


class _Acceptance(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    method: Literal["draft_model", "ngram"]
    prose: float = Field(ge=0, lt=1)
    code: float = Field(ge=0, lt=1)
    numbers: float = Field(ge=0, lt=1)
    source: str
    confidence: tables.Confidence


class _AcceptanceTable(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    acceptance: list[_Acceptance]


@cache
def acceptance(method: Literal["draft_model", "ngram"], text: TextKind) -> float:
    """The probability of acceptance.yaml."""
    table = read_model(tables.TABLES_DIR / "acceptance.yaml", _AcceptanceTable).acceptance
    return getattr(next(row for row in table if row.method == method), text)
