"""The year as one table: a row for each of its labs, with what came of it, against the baseline, and what it cost.

Belongs here: which result speaks for a lab, and what it is compared with. Doesn't belong here: reading rows (read.py),
the page around the table (page.py).

Each target has a table of its own, and a lab a line for its measured and one for its modelled numbers: no line adds two
places up, and none is compared with a baseline of another place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab_pipelines.catalog.spec import Identity, LabSpec
from lab_pipelines.report.wording import GAP, Row, short

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
    main: Row | None
    """What came of the claim that its spec names first, of `findings`; None where none was tested."""


@dataclass(frozen=True)
class YearRow:
    lab: Identity
    complete: bool
    lines: list[Line]
    """Measured ones first; empty for a lab without results."""


def year_rows(
    labs: Mapping[str, Identity],
    rows: Sequence[Row],
    references: Mapping[str, Reference],
    findings: Sequence[Row],
) -> list[YearRow]:
    """One row for each lab of the year, of the places that `rows` (of the question `year`) tell of.

    `references` by target; `findings` are those of the shown runs.
    """
    lines: dict[str, list[Line]] = {}
    for row in rows:
        main = main_finding(labs.get(row["lab"]), row, findings)
        lines.setdefault(row["lab"], []).append(_line(row, references.get(row["target"]), main))
    return [YearRow(lab, isinstance(lab, LabSpec), lines.get(lab.id, [])) for lab in labs.values()]


def main_finding(lab: Identity | None, row: Row, findings: Sequence[Row]) -> Row | None:
    """The finding that speaks for a lab in one place: of those that were tested there, the first that its spec names,
    and of several runs the newest."""
    order = [claim.id for claim in lab.findings] if isinstance(lab, LabSpec) else []
    own = [one for one in findings if all(one[key] == row[key] for key in ("lab", "target", "provenance"))]
    rank = {one["finding"]: len(order) for one in own} | {name: place for place, name in enumerate(order)}
    newest_first = sorted(own, key=lambda one: one["recorded_at"], reverse=True)
    return min(newest_first, key=lambda one: rank[one["finding"]], default=None)


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


def times(ratio: float | None) -> str:
    """A ratio to the baseline."""
    return GAP if ratio is None else f"{short(ratio)} x"


def spent(row: Row) -> str:
    """What all runs of a lab in one place cost, and how many have no price."""
    if row["usd"] is None:
        return "no price known"
    return short(row["usd"]) + (f", {row['unpriced_runs']} runs without a price" if row["unpriced_runs"] else "")


def _line(row: Row, reference: Reference | None, main: Row | None) -> Line:
    if reference is None:
        return Line(row, None, None, main)
    return Line(
        row,
        _over(row["output_tokens_per_s"], reference.output_tokens_per_s),
        _over(row["usd_per_1k_tokens"], reference.usd_per_1k_tokens),
        main,
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
