"""The load plan, as every process of the load generator reads it.

The plan is written and validated by `resources.load_generator.LoadPlan`. It is read again here without that class,
because importing it means importing Dagster: three seconds and a hundred megabytes in each load process, and a
package that a load generator's container doesn't have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from streaming_load.traces import TraceError, TraceFormat, TraceRow, replayed

ProfileKind = Literal["ramp", "constant", "burst", "rate", "rate_profile", "trace"]
Arrivals = Literal["even", "poisson", "gamma"]


class PlanError(ValueError):
    """The plan or its prompts can't be used. The message names the file, the field and the remedy."""


@dataclass(frozen=True)
class CompletionShape:
    """A streamed completion with exact token counts."""

    streamed: ClassVar[bool] = True

    kind: Literal["completion"]
    weight: float
    prompts: str
    input_tokens: int
    output_tokens: int
    temperature: float
    timeout_wall_s: float
    shared_prefix_tokens: int = 0
    text: str = "prose"
    truncate_to: int | None = None
    expect: int = 200


@dataclass(frozen=True)
class HttpShape:
    """A plain GET."""

    streamed: ClassVar[bool] = False

    kind: Literal["http"]
    weight: float
    path: str
    expect: int
    timeout_wall_s: float


@dataclass(frozen=True)
class TracedShape:
    """A streamed completion whose counts of tokens are those of its row in the plan's trace."""

    streamed: ClassVar[bool] = True
    expect: ClassVar[int] = 200

    kind: Literal["traced"]
    weight: float
    temperature: float
    timeout_wall_s: float
    text: str = "prose"


Shape = CompletionShape | HttpShape | TracedShape
_SHAPES: dict[str, type[Shape]] = {"completion": CompletionShape, "http": HttpShape, "traced": TracedShape}


@dataclass(frozen=True)
class Trace:
    """Which part of which file is replayed, and how fast. The file itself is read where the load is made."""

    file: str
    format: TraceFormat
    start_s: float
    duration_s: float | None
    per_wall_s: float
    """Trace seconds per wall second."""
    max_input_tokens: int
    max_output_tokens: int
    clipped: int
    """Requests whose counts of tokens aren't the trace's."""
    digest: str
    """Of the rows that the plan was made for."""

    @cached_property
    def rows(self) -> tuple[TraceRow, ...]:
        """The file's rows, read once. Raises `TraceError`, also where they aren't the plan's."""
        found = replayed(
            Path(self.file),
            self.format,
            start_s=self.start_s,
            duration_s=self.duration_s,
            max_input_tokens=self.max_input_tokens,
            max_output_tokens=self.max_output_tokens,
        )
        if found.digest != self.digest:
            raise TraceError(
                f"{self.file} here isn't the file that the plan was made for; bring both to the same state, in a "
                "cluster by an image of this checkout"
            )
        return found.rows


@dataclass(frozen=True)
class Stage:
    """So many concurrent users, or so many requests per second, for so long. Times are wall seconds.

    `points` are (time, requests per second) of a rate that changes, straight from each to the next; `per_wall_s` is
    then their mean. Of a trace it is the mean, too.
    """

    stage: int
    users: int | None
    per_wall_s: float | None
    hold_wall_s: float
    min_requests: int
    max_hold_wall_s: float
    points: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class Plan:
    """The fields of `LoadPlan`, which documents them."""

    run_id: str
    step: str
    base_url: str
    model: str | None
    profile: ProfileKind
    arrivals: Arrivals
    max_in_flight: int | None
    shapes: tuple[Shape, ...]
    stages: tuple[Stage, ...]
    burstiness: float | None = None
    trace: Trace | None = None
    trial: int = 1

    @property
    def prompt_key(self) -> str:
        """What tells this load's prompts from those of other runs and trials, which a prefix cache may still hold."""
        return self.run_id if self.trial == 1 else f"{self.run_id}.T{self.trial}"

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent at their scheduled times, whatever became of the earlier ones."""
        return self.profile not in ("ramp", "constant")


def read_plan(path: Path) -> Plan:
    """Read `path`. Raises `PlanError` for a file that is missing, isn't JSON, or has other fields than a plan."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"--plan {path} can't be read ({error.strerror}); give the path of a load plan") from error
    except ValueError as error:
        raise PlanError(f"--plan {path} is not JSON ({error}); write it from a LoadPlan") from error
    _same_fields(Plan, content, where=str(path))
    for position, stage in enumerate(content["stages"]):
        _same_fields(Stage, stage, where=f"{path}, stages[{position}]")
    shapes = tuple(
        _read_shape(shape, where=f"{path}, shapes[{position}]") for position, shape in enumerate(content["shapes"])
    )
    stages = tuple(_read_stage(stage) for stage in content["stages"])
    return Plan(**{**content, "shapes": shapes, "stages": stages, "trace": _read_trace(content["trace"], path)})


def _read_stage(content: dict[str, Any]) -> Stage:
    points = content["points"]
    return Stage(**{**content, "points": None if points is None else tuple((at_s, per_s) for at_s, per_s in points)})


def _read_trace(content: Any, path: Path) -> Trace | None:
    if content is None:
        return None
    _same_fields(Trace, content, where=f"{path}, trace")
    trace = Trace(**content)
    try:
        trace.rows  # noqa: B018 - read now: a file that can't be replayed is the plan's mistake
    except TraceError as error:
        raise PlanError(str(error)) from error
    return trace


def _read_shape(content: Any, *, where: str) -> Shape:
    kind = _SHAPES.get(str(content.get("kind"))) if isinstance(content, dict) else None
    if kind is None:
        raise PlanError(f"{where}: kind is none of {', '.join(_SHAPES)}; write it from a LoadPlan")
    _same_fields(kind, content, where=where)
    return kind(**content)


def _same_fields(kind: type[Plan | Stage | Shape | Trace], content: Any, *, where: str) -> None:
    expected = {field.name for field in fields(kind)}
    given = set(content) if isinstance(content, dict) else set()
    if given != expected:
        missing, unknown = sorted(expected - given), sorted(given - expected)
        raise PlanError(f"{where}: missing fields {missing}, unknown fields {unknown}; write it from a LoadPlan")
