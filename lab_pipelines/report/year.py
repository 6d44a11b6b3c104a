"""The year as one table: a row for each of its labs, with what came of it, against the baseline, and what it cost.

Belongs here: which result speaks for a lab. Doesn't belong here: what it is compared with (view `baseline_deltas`),
reading rows (read.py), the page around the table (page.py).

Each target has a table of its own, and a lab a line for its measured and one for its modelled numbers: no line adds two
places up, and none is compared with a baseline of another place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.report.wording import GAP, Row, short


@dataclass(frozen=True)
class Line:
    """What came of a lab in one place."""

    row: Row
    """Of the question `year`."""
    throughput: float | None
    """Its fastest stage's output tokens/s over the baseline's; None where the two don't compare."""
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
    peaks: Sequence[Row],
    findings: Sequence[Row],
) -> list[YearRow]:
    """One row for each lab of the year, of the places that `rows` (of the question `year`) tell of.

    `peaks` are of the question of that name; `findings` those of the shown runs.
    """
    lines: dict[str, list[Line]] = {}
    ratios = {(one["lab"], one["target"], one["provenance"], one["quantity"]): one["ratio"] for one in peaks}
    for row in rows:
        main = main_finding(labs.get(row["lab"]), row, findings)
        place = (row["lab"], row["target"], row["provenance"])
        throughput, price = (ratios.get((*place, name)) for name in ("output_tokens_per_s", "usd_per_1k_tokens"))
        lines.setdefault(row["lab"], []).append(Line(row, throughput, price, main))
    return [YearRow(lab, isinstance(lab, LabSpec), lines.get(lab.id, [])) for lab in labs.values()]


def main_finding(lab: Identity | None, row: Row, findings: Sequence[Row]) -> Row | None:
    """The finding that speaks for a lab in one place: of those that were tested there, the first that its spec names,
    and of several runs the newest."""
    order = [claim.id for claim in lab.findings] if isinstance(lab, LabSpec) else []
    own = [one for one in findings if all(one[key] == row[key] for key in ("lab", "target", "provenance"))]
    rank = {one["finding"]: len(order) for one in own} | {name: place for place, name in enumerate(order)}
    newest_first = sorted(own, key=lambda one: one["recorded_at"], reverse=True)
    return min(newest_first, key=lambda one: rank[one["finding"]], default=None)


def times(ratio: float | None) -> str:
    """A ratio to the baseline."""
    return GAP if ratio is None else f"{short(ratio)} x"


def spent(row: Row) -> str:
    """What all runs of a lab in one place cost, and how many have no price."""
    if row["usd"] is None:
        return "no price known"
    return short(row["usd"]) + (f", {row['unpriced_runs']} runs without a price" if row["unpriced_runs"] else "")
