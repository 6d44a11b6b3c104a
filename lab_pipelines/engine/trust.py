"""How far the engine model can be trusted for one engine: the range of trust.yaml, or what lies outside of it.

Belongs here: comparing an engine's set-up with that range. Doesn't belong here: how the range was found
(benchmarks/calibration).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model
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
    speculation: bool
    prefix_caching: bool
    users: int
    error: float = Field(gt=0, lt=1)
    compared_with: str


class _Ranges(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    ranges: list[_Range]


@cache
def _ranges() -> list[_Range]:
    return read_model(tables.TABLES_DIR / "trust.yaml", _Ranges).ranges


def trust_of(model: EngineModel) -> Trust:
    """Whether `model` lies within a range, and if not, what keeps it out of the nearest one."""
    kept_out = min((_kept_out(model, one) for one in _ranges()), key=len)
    if kept_out:
        reason = "; ".join(kept_out)
        return Trust(False, f"no public measurement was compared with {reason}", None, OUTSIDE_ERROR)
    inside = next(one for one in _ranges() if not _kept_out(model, one))
    return Trust(
        True,
        f"within {inside.error:.0%} of {inside.compared_with}, up to {inside.users} requests at once",
        inside.users,
        inside.error,
    )


def _kept_out(model: EngineModel, one: _Range) -> list[str]:
    args, parameters = model.args, model.args.model.parameters.value
    reasons = {
        f"a {model.hardware.product}": model.hardware.name not in one.gpus,
        f"weights in {args.model.weights}": args.model.weights not in one.weights,
        f"{parameters / 1e9:.3g}B parameters": not one.parameters.least <= parameters <= one.parameters.most,
        f"{args.gpus} GPUs for one engine": args.gpus > one.gpus_per_engine,
        "speculation": args.draft is not None and not one.speculation,
        "prefix caching": args.prefix_caching and not one.prefix_caching,
    }
    return [reason for reason, holds in reasons.items() if holds]
