"""Reads what the report shows: the newest session of each lab, variant, target, pace and engine.

Doesn't belong here: how any of it looks (page.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines.catalog.loader import Catalog
from lab_pipelines.catalog.spec import Identity
from lab_pipelines.report.wording import Row, printable

if TYPE_CHECKING:
    from resources.warehouse_core import WarehouseCore

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True)
class Section:
    """One session and all that is known of it."""

    overview: Row
    """Of the view `run_overview`."""
    stages: list[Row]
    cold_start: list[Row]
    cost: list[Row]
    gaps: list[Row]
    findings: list[Row]

    @property
    def lab(self) -> str:
        return self.overview["lab"]


@dataclass(frozen=True)
class Report:
    written_at: datetime
    labs: Mapping[str, Identity]
    """The whole year, by id."""
    totals: Sequence[Row]
    sections: list[Section]

    @property
    def labs_with_results(self) -> list[str]:
        return sorted({section.lab for section in self.sections})


def read_sections(warehouse: WarehouseCore) -> list[Section]:
    """The shown sessions, by lab and target, newest first. Raises the warehouse's own error."""
    overviews = _rows(warehouse, "overview")
    parts = {name: _by_session(warehouse, name) for name in ("stages", "cold_start", "cost", "gaps", "findings")}
    # The sessions are fixed by the first query: rows of a run that is published meanwhile find no section.
    return [
        Section(overview=overview, **{name: rows[overview["session_id"]] for name, rows in parts.items()})
        for overview in overviews
    ]


def read_report(warehouse: WarehouseCore, catalog: Catalog, *, now: datetime) -> Report:
    """Everything the page shows. Raises the warehouse's own error, and `SpecError` for a broken catalog."""
    sections = read_sections(warehouse)
    return Report(
        written_at=now,
        labs={lab.id: lab for lab in catalog.labs()},
        totals=_rows(warehouse, "totals"),
        sections=sections,
    )


def _by_session(warehouse: WarehouseCore, name: str) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in _rows(warehouse, name):
        rows[row["session_id"]].append(row)
    return rows


def _rows(warehouse: WarehouseCore, name: str) -> list[Row]:
    """The answer to one of our questions. Its text is fit to be shown: engines put what they like into an error."""
    answer = warehouse.query((_SQL / f"{name}.sql").read_text(encoding="utf-8"))
    return [
        {column: printable(value) if isinstance(value, str) else value for column, value in row.items()}
        for row in answer
    ]
