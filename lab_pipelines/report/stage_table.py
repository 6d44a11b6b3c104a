"""The table of a load step: one line per stage and variant, in the same columns wherever it is shown.

Belongs here: the columns, their units and how many digits they deserve; the Markdown form.
Doesn't belong here: where the rows come from (view `stage_table`), HTML (page.py), the terminal (cli/).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab_pipelines.report.wording import (
    AT_FAULT,
    AT_FAULT_NOTE,
    GAP_NOTE,
    OUTSIDE,
    OUTSIDE_NOTE,
    ROUGH,
    ROUGH_NOTE,
    Row,
    decimals_for,
    in_order,
    markdown_text,
    number,
    outside_range,
    provenance_line,
)


@dataclass(frozen=True)
class Column:
    key: str
    """Column of the view `stage_table`."""
    group: str
    name: str
    unit: str = ""
    factor: float = 1.0
    """Shown value = stored value times this."""
    significant: int = 3
    at_most: int = 3
    """Decimals."""
    supported: str | None = None
    """The view's boolean that says whether the sample carries an interval."""

    text: bool = False
    """A name, shown as it is."""

    @property
    def header(self) -> str:
        return f"{self.group} {self.name}".strip() + (f", {self.unit}" if self.unit else "")


_USERS = Column("users", "", "users", at_most=0)
_LOAD = {
    "ramp": _USERS,
    "constant": _USERS,
    "burst": Column("users", "", "burst of", at_most=0),
    "rate": Column("offered_per_s", "offered", "requests/s"),
    "rate_profile": Column("offered_per_s", "offered, mean", "requests/s"),
    "trace": Column("offered_per_s", "offered, mean", "requests/s"),
}
"""What was applied, by profile."""
_VARIANT = Column("variant", "", "variant", text=True)
"""Of a run that compares several."""
_TURN = Column("trial", "", "turn", at_most=0)
"""Of a run that walks them several times, where all turns are shown."""
_REQUESTS = Column("requests", "", "requests", at_most=0)
_SERVED = Column("requests_per_s", "served", "requests/s")
"""What came of a load that isn't given in users: an overloaded stack serves less than is offered."""
_COMPLETIONS = (
    Column("output_tokens_per_s", "output", "tokens/s", at_most=1),
    Column("ttft_p50_s", "TTFT", "p50", "s"),
    Column("ttft_p95_s", "TTFT", "p95", "s", supported="ttft_p95_supported"),
    Column("ttft_p99_s", "TTFT", "p99", "s", supported="ttft_p99_supported"),
    Column("itl_p50_s", "ITL", "p50", "ms", factor=1000, at_most=1),
    Column("itl_p95_s", "ITL", "p95", "ms", factor=1000, at_most=1),
    Column("queue_depth", "", "queue depth", at_most=1),
    Column("kv_cache_usage", "", "KV cache", "%", factor=100, at_most=1),
    Column("usd_per_1k_tokens", "USD per", "1K tokens", at_most=7),
)
_GETS = (
    Column("error_rate", "", "failed", "%", factor=100, at_most=1),
    Column("e2e_p50_s", "latency", "p50", "ms", factor=1000, at_most=1),
    Column("e2e_p95_s", "latency", "p95", "ms", factor=1000, at_most=1, supported="e2e_p95_supported"),
    Column("e2e_p99_s", "latency", "p99", "ms", factor=1000, at_most=1, supported="e2e_p99_supported"),
)


def columns(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of one ladder, by its first row: they follow the profile, and plain GETs have no tokens."""
    several = {"variant": _VARIANT, "trial": _TURN}
    told_apart = [column for name, column in several.items() if len({row[name] for row in rows}) > 1]
    lead = [_LOAD[rows[0]["profile"]], *told_apart, _REQUESTS]
    if rows[0]["request_kind"] == "http":
        return (*lead, _SERVED, *_GETS)
    return (*lead, *([_SERVED] if rows[0]["users"] is None else []), *_COMPLETIONS)


def variants_of(rows: Iterable[Row]) -> list[str]:
    """The variants of a run's stages, in the order in which they were walked."""
    return in_order(row["variant"] for row in sorted(rows, key=lambda r: r["started_at"]))


@dataclass(frozen=True)
class Cell:
    text: str
    gap: bool
    rough: bool
    outside: bool = False
    """The stage's load, where the engine model was compared with nothing."""
    at_fault: str | None = None
    """The stage's load, where the load generator was over its own error budget: by what."""

    def __str__(self) -> str:
        marks = f"{f' {OUTSIDE}' * self.outside}{f' {AT_FAULT}' * (self.at_fault is not None)}"
        return f"{f'{ROUGH} ' * self.rough}{self.text}{marks}"


def stage_cells(rows: Sequence[Row]) -> list[list[Cell]]:
    """The rows of one ladder as cells, in the order of its `columns`; a column, or a group of them, shares decimals."""
    shown = columns(rows)
    cells = [_column_cells(column, shown, rows) for column in shown]
    return [list(line) for line in zip(*cells, strict=True)]


def _column_cells(column: Column, shown: Sequence[Column], rows: Sequence[Row]) -> list[Cell]:
    if column.text:
        return [Cell(text=row[column.key], gap=False, rough=False) for row in rows]
    values = _values(column, rows)
    compared = [c for c in shown if c is column or (column.group and c.group == column.group)]
    decimals = decimals_for(
        [value for c in compared for value in _values(c, rows)], significant=column.significant, at_most=column.at_most
    )
    return [
        Cell(
            text=number(value, decimals),
            gap=value is None,
            rough=value is not None and column.supported is not None and not row[column.supported],
            outside=column is shown[0] and outside_range(row) is not None,
            at_fault=row["client_fault"] if column is shown[0] else None,
        )
        for value, row in zip(values, rows, strict=True)
    ]


def _values(column: Column, rows: Sequence[Row]) -> list[float | None]:
    return [None if row[column.key] is None else row[column.key] * column.factor for row in rows]


def ladders(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows apart by run and load step, in the order in which these were applied; a load's variants side by side."""
    steps: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: (r["lab"], r["target"], r["run_id"], r["started_at"])):
        steps[row["lab"], row["target"], row["run_id"], row["step"]].append(row)
    return [_side_by_side(step) for step in steps.values()]


def _side_by_side(rows: Sequence[Row]) -> list[Row]:
    variants = variants_of(rows)
    return sorted(rows, key=lambda r: (r["stage"], variants.index(r["variant"]), r["trial"]))


def notes(cells: Iterable[Iterable[Cell]]) -> list[str]:
    """The footnotes that these cells need."""
    flat = [cell for line in cells for cell in line]
    faults: dict[str, list[str]] = defaultdict(list)
    for cell in flat:
        if cell.at_fault is not None:
            faults[cell.at_fault].append(cell.text)
    said = "; ".join(f"at {', '.join(in_order(loads))}: {fault}" for fault, loads in faults.items())
    return (
        [OUTSIDE_NOTE] * any(c.outside for c in flat)
        + [f"{AT_FAULT_NOTE} ({said}). Run it again where the machine has less else to do."] * bool(faults)
        + [ROUGH_NOTE] * any(c.rough for c in flat)
        + [GAP_NOTE] * any(c.gap for c in flat)
    )


def range_notes(rows: Sequence[Row]) -> list[str]:
    """Why the engine model is not to be trusted for some of a run's stages, by variant where they differ."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: r["started_at"]):
        if reason := outside_range(row):
            reasons[reason].append(row["variant"])
    several = len(variants_of(rows)) > 1
    return [f"{', '.join(in_order(who))}: {reason}" if several else reason for reason, who in reasons.items()]


def stage_markdown(rows: Iterable[Row]) -> str:
    """Rows of the view `stage_table` as Markdown: one table per run and load step, under its provenance."""
    blocks = [_ladder_markdown(ladder) for ladder in ladders(rows)]
    return "\n\n".join(blocks) or "No load stage has been recorded yet."


def cells_markdown(shown: Sequence[Column], cells: Iterable[Iterable[Cell]]) -> list[str]:
    """The lines of a Markdown table."""
    return [
        "| " + " | ".join(column.header for column in shown) + " |",
        "|" + "".join(" --- |" if column.text else " ---: |" for column in shown),
        *("| " + " | ".join(markdown_text(cell) for cell in line) + " |" for line in cells),
    ]


def _ladder_markdown(rows: Sequence[Row]) -> str:
    first, shown, cells = rows[0], columns(rows), stage_cells(rows)
    several = len(variants_of(rows)) > 1
    name = first["lab"] if several else f"{first['lab']} {first['variant']}"
    lines = [
        f"**{markdown_text(name)}** · step {markdown_text(first['step'])} · " + markdown_text(provenance_line(first)),
        "",
        *cells_markdown(shown, cells),
    ]
    if footnotes := [*notes(cells), *(markdown_text(note) for note in range_notes(rows))]:
        lines += ["", " ".join(footnotes)]
    return "\n".join(lines)
