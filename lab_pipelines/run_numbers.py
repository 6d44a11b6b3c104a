"""The numbers of runs that are compared with one another: of each stage, and over all of them. Pure.

Doesn't belong here: reading them (regression_runs.py), or whether a difference is a regression (regression.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

ALL_STAGES = "all stages"
"""In place of a step's name."""


@dataclass(frozen=True)
class Quantity:
    """A number of a stage."""

    name: str
    """As on the command line."""
    column: str
    """Of the view stage_table."""
    higher_is_better: bool = False
    of_gets: bool = False
    """Of plain GETs alone: a completion's whole latency is its TTFT and its tokens' times, which are asked for."""


QUANTITIES = (
    Quantity("throughput", "output_tokens_per_s", higher_is_better=True),
    Quantity("ttft_p50", "ttft_p50_s"),
    Quantity("ttft_p95", "ttft_p95_s"),
    Quantity("tpot_p50", "tpot_p50_s"),
    Quantity("e2e_p50", "e2e_p50_s", of_gets=True),
    Quantity("e2e_p95", "e2e_p95_s", of_gets=True),
    Quantity("usd_per_1k", "usd_per_1k_tokens"),
)


@dataclass(frozen=True)
class Cell:
    """One number of a run: where it stands, and which quantity it is."""

    variant: str
    step: str
    users: int | None
    offered_per_s: float | None
    nth: int
    quantity: Quantity
    load: str = field(compare=False)
    """The users or the rate in words."""

    @property
    def place(self) -> str:
        return f"{self.variant}, {self.load}" if self.is_whole else f"{self.variant}, {self.step}, {self.load}"

    @property
    def is_whole(self) -> bool:
        """Whether it stands for all stages of its variant together."""
        return self.step == ALL_STAGES


@dataclass(frozen=True)
class Number:
    """`spread`: the standard error of the value's logarithm by its own requests; None: they are too few to tell."""

    value: float
    """Above zero: zero has no logarithm, and a stage that gave nothing has no number."""
    spread: float | None = None
    n: int = 0
    """Requests behind it."""


@dataclass(frozen=True)
class Run:
    """What one run gave; also a pinned baseline's."""

    run_id: str
    recorded_at: datetime
    engine: str
    provenance: str
    pace: str
    time_scale: float
    numbers: Mapping[Cell, Number]
    details: Mapping[str, str] = field(default_factory=dict)
    """What may differ between two runs that are compared nevertheless: model, sku, digests."""
    invalid_reason: str | None = None

    def unlike(self, other: Run) -> str | None:
        """Why the two can't be compared at all; None if they can."""
        if self.provenance != other.provenance:
            return f"{self.provenance} against {other.provenance} numbers"
        differing = [
            f"{name} {mine} against {theirs}"
            for name, mine, theirs in (
                ("engine", self.engine, other.engine),
                ("pace", self.pace, other.pace),
                ("time scale", f"{self.time_scale:g}", f"{other.time_scale:g}"),
            )
            if mine != theirs
        ]
        return ", ".join(differing) or None

    def changed(self, other: Run) -> list[str]:
        """The names of details that both know and that differ."""
        return sorted(k for k in self.details.keys() & other.details.keys() if self.details[k] != other.details[k])


def numbers_of(run: Run, cells: Collection[Cell]) -> dict[Cell, Number]:
    """The run's numbers at `cells`, and over all of them of a variant and quantity their geometric mean.

    Where the run lacks one of them, there is none of all: a mean over other stages is another number.
    """
    found = {cell: run.numbers[cell] for cell in cells if cell in run.numbers}
    for whole, stages in wholes(cells).items():
        numbers = [run.numbers[cell] for cell in stages if cell in run.numbers]
        spreads = [number.spread for number in numbers if number.spread is not None]
        if len(numbers) == len(stages):
            found[whole] = Number(
                math.exp(math.fsum(math.log(number.value) for number in numbers) / len(numbers)),
                math.hypot(*spreads) / len(numbers) if len(spreads) == len(numbers) else None,
                sum(number.n for number in numbers),
            )
    return found


def wholes(cells: Collection[Cell]) -> dict[Cell, list[Cell]]:
    """The stages of each variant and quantity that has several, by the cell that stands for all of them."""
    found: dict[Cell, list[Cell]] = {}
    for cell in cells:
        whole = Cell(cell.variant, ALL_STAGES, None, None, 1, cell.quantity, ALL_STAGES)
        found.setdefault(whole, []).append(cell)
    return {whole: stages for whole, stages in found.items() if len(stages) > 1}
