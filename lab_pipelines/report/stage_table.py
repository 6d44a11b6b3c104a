"""The table of a load step: one line per number of users, in the same columns wherever it is shown.

Belongs here: the columns, their units and how many digits they deserve; the Markdown form.
Doesn't belong here: where the rows come from (view `stage_table`), HTML (page.py), the terminal (cli.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from lab_pipelines.report.wording import (
    GAP_NOTE,
    ROUGH,
    ROUGH_NOTE,
    Row,
    decimals_for,
    markdown_text,
    number,
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

    @property
    def header(self) -> str:
        return f"{self.group} {self.name}".strip() + (f", {self.unit}" if self.unit else "")


COLUMNS = (
    Column("users", "", "users", at_most=0),
    Column("requests", "", "requests", at_most=0),
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


@dataclass(frozen=True)
class Cell:
    text: str
    gap: bool
    rough: bool

    def __str__(self) -> str:
        return f"{ROUGH} {self.text}" if self.rough else self.text


def stage_cells(rows: Sequence[Row]) -> list[list[Cell]]:
    """The rows of one table as cells, in the order of `COLUMNS`; a column, or a group of them, shares its decimals."""
    columns = [_column_cells(column, rows) for column in COLUMNS]
    return [list(line) for line in zip(*columns, strict=True)]


def _column_cells(column: Column, rows: Sequence[Row]) -> list[Cell]:
    values = _values(column, rows)
    compared = [c for c in COLUMNS if c is column or (column.group and c.group == column.group)]
    decimals = decimals_for(
        [value for c in compared for value in _values(c, rows)], significant=column.significant, at_most=column.at_most
    )
    return [
        Cell(
            text=number(value, decimals),
            gap=value is None,
            rough=value is not None and column.supported is not None and not row[column.supported],
        )
        for value, row in zip(values, rows, strict=True)
    ]


def _values(column: Column, rows: Sequence[Row]) -> list[float | None]:
    return [None if row[column.key] is None else row[column.key] * column.factor for row in rows]


def ladders(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows apart by session and load step, each in the order of its stages."""
    ordered = sorted(rows, key=lambda r: (r["lab"], r["target"], r["session_id"], r["step"], r["stage"]))
    return [list(group) for _, group in groupby(ordered, key=lambda r: (r["session_id"], r["step"]))]


def notes(cells: Iterable[Iterable[Cell]]) -> list[str]:
    """The footnotes that these cells need."""
    flat = [cell for line in cells for cell in line]
    return [ROUGH_NOTE] * any(c.rough for c in flat) + [GAP_NOTE] * any(c.gap for c in flat)


def stage_markdown(rows: Iterable[Row]) -> str:
    """Rows of the view `stage_table` as Markdown: one table per session and load step, under its provenance."""
    blocks = [_ladder_markdown(ladder) for ladder in ladders(rows)]
    return "\n\n".join(blocks) or "No load stage has been recorded yet."


def _ladder_markdown(rows: Sequence[Row]) -> str:
    first, cells = rows[0], stage_cells(rows)
    lines = [
        f"**{markdown_text(first['lab'] + ' ' + first['variant'])}** · {markdown_text(provenance_line(first))}",
        "",
        "| " + " | ".join(column.header for column in COLUMNS) + " |",
        "|" + " ---: |" * len(COLUMNS),
        *("| " + " | ".join(str(cell) for cell in line) + " |" for line in cells),
    ]
    if footnotes := notes(cells):
        lines += ["", " ".join(footnotes)]
    return "\n".join(lines)
