"""How long a stack takes from nothing to an engine that answers: a plan of phases, from cold_start.yaml.

Belongs here: the plan, and draws around it. Doesn't belong here: waiting for it (serve.py plays its own phases, a
cluster the others).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.engine import tables

PhaseName = Literal["node_ready", "driver_ready", "image_pulled", "model_loaded", "engine_ready"]


@dataclass(frozen=True)
class PlannedPhase:
    """One phase, in the order of the plan. `duration_s` is in stack seconds."""

    name: PhaseName
    duration_s: float
    source: str
    confidence: tables.Confidence


class Spread(BaseModel):
    """The shortest and the longest that was seen or is claimed, as multiples of an anchor's time."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    shortest: float = Field(gt=0, le=1)
    longest: float = Field(ge=1)
    source: str
    confidence: tables.Confidence


class _Anchor(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    name: PhaseName
    fixed_s: float = Field(ge=0)
    spread: Spread
    weights_bytes_per_s: float | None = Field(default=None, gt=0)
    source: str


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    measured_on: str
    phases: list[_Anchor]


@cache
def _table() -> _Table:
    return read_model(tables.TABLES_DIR / "cold_start.yaml", _Table)


def cold_start_plan(gpu: str, model: str) -> list[PlannedPhase]:
    """The phases of a cold start of `model` on a new node with `gpu`, in order.

    Only the measured machine has confidence A; another one's phases are derived from it (by the model's bytes where
    weights move, otherwise unchanged) and have confidence C. Raises `UnknownNameError`.
    """
    row, weights = tables.hardware(gpu), tables.model(model).weights_bytes
    table = _table()
    confidence: tables.Confidence = "A" if row.name == table.measured_on else "C"
    return [
        PlannedPhase(
            name=anchor.name,
            duration_s=anchor.fixed_s + (weights / anchor.weights_bytes_per_s if anchor.weights_bytes_per_s else 0.0),
            source=anchor.source,
            confidence=confidence,
        )
        for anchor in table.phases
    ]


OF_THE_ENGINE: frozenset[PhaseName] = frozenset({"model_loaded", "engine_ready"})
"""What is left of a cold start where node, driver and image are there already."""


OF_THE_NODE: frozenset[PhaseName] = frozenset({"node_ready", "driver_ready"})
"""What a node with a GPU takes until pods may ask for it, whatever they run."""


def drawn_node_start(gpu: str | None, numbers: random.Random) -> list[PlannedPhase]:
    """The phases of a node alone, with times drawn around the plan's; without a GPU there is no driver to wait for.

    Raises `UnknownNameError`.
    """
    wanted = OF_THE_NODE if gpu is not None else OF_THE_NODE - {"driver_ready"}
    return [_drawn(anchor, gpu, numbers) for anchor in _table().phases if anchor.name in wanted]


def drawn_image_pull(gpu: str | None, numbers: random.Random) -> PlannedPhase:
    """The pull of an engine's image to a node that lacks it, its time drawn around the plan's.

    Raises `UnknownNameError`.
    """
    return _drawn(next(anchor for anchor in _table().phases if anchor.name == "image_pulled"), gpu, numbers)


def drawn_bootstrap_s(numbers: random.Random) -> float:
    """What a model load takes beside moving its weights: container, framework, engine. Drawn around its anchor."""
    anchor = next(anchor for anchor in _table().phases if anchor.name == "model_loaded")
    return anchor.fixed_s * triangular(numbers.random(), anchor.spread)


def _drawn(anchor: _Anchor, gpu: str | None, numbers: random.Random) -> PlannedPhase:
    """A phase whose time hangs on no model."""
    measured = gpu is not None and tables.hardware(gpu).name == _table().measured_on
    return PlannedPhase(
        name=anchor.name,
        duration_s=anchor.fixed_s * triangular(numbers.random(), anchor.spread),
        source=anchor.source,
        confidence="A" if measured else "C",
    )


def drawn_cold_start(gpu: str, model: str, numbers: random.Random, *, warm: bool) -> list[PlannedPhase]:
    """The phases with times drawn around the plan's, each on its own; `warm`: on a node that is there, with its image.

    Raises `UnknownNameError`.
    """
    spreads = {anchor.name: anchor.spread for anchor in _table().phases}
    return [
        replace(phase, duration_s=phase.duration_s * triangular(numbers.random(), spreads[phase.name]))
        for phase in cold_start_plan(gpu, model)
        if not warm or phase.name in OF_THE_ENGINE
    ]


def triangular(u: float, spread: Spread) -> float:
    """The quantile `u` of the triangular distribution with its mode at 1."""
    low, high = spread.shortest, spread.longest
    if high == low:
        return 1.0
    mode = (1 - low) / (high - low)
    if u < mode:
        return low + math.sqrt(u * (high - low) * (1 - low))
    return high - math.sqrt((1 - u) * (high - low) * (high - 1))
