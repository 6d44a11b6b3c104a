"""The year as one table: a row for each of its labs, with what came of it, against the baseline, and what it cost.

Belongs here: which result speaks for a lab, and what it is compared with. Doesn't belong here: reading rows (read.py),
the page around the table (page.py).

A lab that was run in several places has a line for each of them, with the place and whether its numbers were measured:
no line adds two places up, and none is compared with a baseline of another place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab_pipelines.catalog.spec import Identity, LabSpec
from lab_pipelines.report.wording import Row

BASELINE_LAB = "L06"
"""The year's control group."""


@dataclass(frozen=True)
class Reference:
    """What a place's results are compared with, and in words where that is from."""

    output_tokens_per_s: float | None
    usd_per_1k_tokens: float | None
    source: str


@dataclass(frozen=True)
class Line:
    """What came of a lab in one place."""

    row: Row
    """Of the question `year`."""
    throughput: float | None
    """Its fastest stage's output tokens/s over the baseline's; None where either is not known."""
    price: float | None
    """Its cheapest stage's USD per 1K tokens over the baseline's."""


@dataclass(frozen=True)
class YearRow:
    lab: Identity
    complete: bool
    lines: list[Line]
    """Measured ones first; empty for a lab without results."""


def year_rows(labs: Mapping[str, Identity], rows: Sequence[Row], references: Mapping[str, Reference]) -> list[YearRow]:
    """One row for each lab of the year. `references` by target."""
    return [
        YearRow(
            lab=lab,
            complete=isinstance(lab, LabSpec),
            lines=[_line(row, references.get(row["target"])) for row in rows if row["lab"] == lab.id],
        )
        for lab in labs.values()
    ]


def references_of(rows: Sequence[Row], pinned: Mapping[str, Mapping[str, object]]) -> dict[str, Reference]:
    """By target: the pinned baseline where there is one, else what the baseline lab's newest runs gave there.

    `pinned` are the contents of the baselines' files (results/baselines), by target.
    """
    found = {
        row["target"]: Reference(
            row["output_tokens_per_s"], row["usd_per_1k_tokens"], f"{BASELINE_LAB}'s newest run there, not pinned"
        )
        for row in rows
        if row["lab"] == BASELINE_LAB
    }
    return found | {target: _pinned(content) for target, content in pinned.items()}


def _line(row: Row, reference: Reference | None) -> Line:
    if reference is None:
        return Line(row, None, None)
    return Line(
        row,
        _over(row["output_tokens_per_s"], reference.output_tokens_per_s),
        _over(row["usd_per_1k_tokens"], reference.usd_per_1k_tokens),
    )


def _over(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _pinned(content: Mapping[str, object]) -> Reference:
    variants = content["variants"]
    assert isinstance(variants, Mapping)
    stages = [stage for variant in variants.values() for stage in variant["stages"]]
    speeds = [stage["output_tokens_per_s"] for stage in stages if stage["output_tokens_per_s"] is not None]
    prices = [stage["usd_per_1k_tokens"] for stage in stages if stage["usd_per_1k_tokens"] is not None]
    day = str(content["pinned_at"])[:10]
    source = f"{BASELINE_LAB}'s baseline, pinned {day}"
    return Reference(max(speeds, default=None), min(prices, default=None), source)
