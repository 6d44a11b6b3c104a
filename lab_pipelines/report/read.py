"""Reads what the report shows: the newest session of each lab, variant, target, pace and engine, run by run.

Doesn't belong here: how any of it looks (page.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines.baseline import current
from lab_pipelines.catalog.loader import Catalog
from lab_pipelines.catalog.spec import Identity
from lab_pipelines.deployment import REPO_ROOT, TARGETS
from lab_pipelines.report.wording import Row, in_order, printable
from lab_pipelines.report.year import BASELINE_LAB, Reference, references_of

if TYPE_CHECKING:
    from resources.warehouse_core import WarehouseCore

_SQL = Path(__file__).parent / "sql"
FORECAST_ERROR = REPO_ROOT / "warehouse" / "queries" / "forecast_error.sql"
"""The tracked number; the page shows no other."""


@dataclass(frozen=True)
class Section:
    """One run of a lab on one target: those of its variants that no newer run has walked again, and what is known."""

    overview: Row
    """Of the view `run_overview`: the first variant's. What a run has in common stands in it."""
    variants: list[Row]
    """Of the view `run_overview`, in the order in which they were walked."""
    stages: list[Row]
    measures: list[Row]
    steps: list[Row]
    cold_start: list[Row]
    cost: list[Row]
    gaps: list[Row]
    findings: list[Row]

    @property
    def lab(self) -> str:
        return self.overview["lab"]

    @property
    def target(self) -> str:
        return self.overview["target"]

    @property
    def names(self) -> list[str]:
        """The variants' names."""
        return [variant["variant"] for variant in self.variants]


_PARTS = ("stages", "measures", "steps", "cold_start", "cost", "gaps", "findings")


@dataclass(frozen=True)
class Report:
    written_at: datetime
    labs: Mapping[str, Identity]
    """The whole year, by id."""
    totals: Sequence[Row]
    sections: list[Section]
    """By target, and lab by lab; of one lab, the newest run first."""
    forecast: Sequence[Row]
    """Of the view `forecast_vs_measured`, for the shown runs."""
    forecast_error: Sequence[Row]
    """What came of `forecast` by lab, run and quantity, as the question of that name answers."""
    year: Sequence[Row]
    """What came of each lab in each place, as the question `year` answers."""
    references: Mapping[str, Reference]
    """By target, what that is compared with."""
    money: Mapping[str, Sequence[Row]]
    """By question (`by_lab`, `by_load`, `by_day`): what all runs of each target cost."""

    @property
    def targets(self) -> list[str]:
        return in_order(section.target for section in self.sections)

    @property
    def labs_with_results(self) -> list[str]:
        return sorted({section.lab for section in self.sections})


def read_sections(warehouse: WarehouseCore) -> list[Section]:
    """The shown runs, by target and lab, newest first. Raises the warehouse's own error."""
    overviews = _rows(warehouse, "overview")
    parts = {name: _by_run(_rows(warehouse, name)) for name in _PARTS}
    # The runs are fixed by the first query: rows of one that is published meanwhile find no section.
    return [
        Section(overview=variants[0], variants=variants, **{name: rows.get(run, []) for name, rows in parts.items()})
        for run, variants in _by_run(overviews).items()
    ]


def read_report(warehouse: WarehouseCore, catalog: Catalog, *, now: datetime) -> Report:
    """Everything the page shows. Raises the warehouse's own error, and `SpecError` for a broken catalog."""
    sections, year = read_sections(warehouse), _rows(warehouse, "year")
    shown = {section.overview["run_id"] for section in sections}
    return Report(
        written_at=now,
        labs={lab.id: lab for lab in catalog.labs()},
        totals=_rows(warehouse, "totals"),
        sections=sections,
        forecast=_rows(warehouse, "forecast"),
        forecast_error=[row for row in _answer(warehouse, FORECAST_ERROR) if row["run_id"] in shown],
        year=year,
        references=references_of(year, _pinned()),
        money={name: _rows(warehouse, f"money_{name}") for name in ("by_lab", "by_load", "by_day")},
    )


def _pinned() -> dict[str, Mapping[str, object]]:
    """The baseline lab's pinned baselines, by target. Raises `BaselineError` for a file that isn't what was pinned."""
    found = {target: current(BASELINE_LAB, target) for target in TARGETS}
    return {target: baseline.content for target, baseline in found.items() if baseline is not None}


def _by_run(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    runs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["target"], row["lab"], row["run_id"]].append(row)
    return runs


def _rows(warehouse: WarehouseCore, name: str) -> list[Row]:
    return _answer(warehouse, _SQL / f"{name}.sql")


def _answer(warehouse: WarehouseCore, question: Path) -> list[Row]:
    """The answer to one question. Its text is fit to be shown: engines put what they like into an error."""
    answer = warehouse.query(question.read_text(encoding="utf-8"))
    return [
        {column: printable(value) if isinstance(value, str) else value for column, value in row.items()}
        for row in answer
    ]
