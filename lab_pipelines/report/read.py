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

from lab_pipelines.catalog.calendar import Phase, load_calendar
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.loader import Catalog
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.wording import Row, in_order, printable

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
    certainty: list[Row]
    """How sure the stages' numbers are; of runs from before that was kept, none."""
    client_errors: list[Row]
    """How far off the load generator was, by quantity."""
    deltas: list[Row]
    """Each variant against the year's baseline."""

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


TROUBLE = ("failed_steps", "cut_runs", "invalid_rows", "gap_reasons", "incomplete")
"""Files of sql: what failed and what is missing, each by target."""
WITHDRAWN = 0
"""Stands for the phase of labs that are not in the catalog: results outlive them."""
LONGEST_TEXT = 2000
"""Letters of one text on a page: an engine's error may be a log of megabytes."""
_MONEY = ("by_lab", "by_load", "by_day")
_WHOLE = ("totals", "forecast", "forecast_summary", "year", "peaks", "prices", "extremes", "starts", *TROUBLE)
"""Files of sql that the year as a whole is made of."""
_PARTS = (
    "stages",
    "measures",
    "steps",
    "cold_start",
    "cost",
    "gaps",
    "findings",
    "certainty",
    "client_errors",
    "deltas",
)


@dataclass(frozen=True)
class Report:
    written_at: datetime
    labs: Mapping[str, Identity]
    """The whole year, by id."""
    phases: Sequence[Phase]
    """The year's, in order; the first has number 1."""
    totals: Sequence[Row]
    sections: list[Section]
    """By target, and lab by lab; of one lab, the newest run first."""
    forecast: Sequence[Row]
    """Of the view `forecast_vs_measured`, for the shown runs."""
    forecast_error: Sequence[Row]
    """What came of `forecast` by lab, run and quantity, as the question of that name answers."""
    year: Sequence[Row]
    """What came of each lab in each place, as the question `year` answers."""
    peaks: Sequence[Row]
    """Each lab's best against the baseline's best, as the question `peaks` answers."""
    money: Mapping[str, Sequence[Row]]
    """By question (`by_lab`, `by_load`, `by_day`): what all runs of each target cost."""
    prices: Sequence[Row]
    """What each machine type cost per hour, and what was bought of it."""
    extremes: Sequence[Row]
    """The best and the worst of the year."""
    starts: Sequence[Row]
    """The cold start of each machine type, phase by phase."""
    forecast_summary: Sequence[Row]
    """What came of `forecast` by target and quantity, over all labs."""
    trouble: Mapping[str, Sequence[Row]]
    """By question (`TROUBLE`): what failed, what is missing."""

    @property
    def targets(self) -> list[str]:
        return in_order(section.target for section in self.sections)

    @property
    def labs_with_results(self) -> list[str]:
        return sorted({section.lab for section in self.sections})

    def phase_of(self, lab: str) -> int:
        """The number of a lab's phase; `WITHDRAWN` of one that is not in the catalog."""
        return self.labs[lab].phase if lab in self.labs else WITHDRAWN

    def phase_name(self, number: int) -> str:
        """A phase, as a heading."""
        return f"Phase {number} · {self.phases[number - 1].name}" if number else "Labs no longer in the catalog"

    def title(self, lab: str) -> str:
        """A lab's title; results outlive a lab that was withdrawn."""
        return self.labs[lab].title if lab in self.labs else "not in the catalog"


def read_sections(warehouse: WarehouseCore) -> list[Section]:
    """The shown runs, by target and lab, newest first. Raises the warehouse's own error."""
    return _sections(_answers(warehouse, {name: _SQL / f"{name}.sql" for name in ("overview", *_PARTS)}))


def read_report(warehouse: WarehouseCore, catalog: Catalog, *, now: datetime) -> Report:
    """Everything the pages show, of one state of the lake.

    Pinned baselines are those that the lake has. Raises the warehouse's own error, `SpecError` for a broken catalog.
    """
    money = [f"money_{name}" for name in _MONEY]
    files = {name: _SQL / f"{name}.sql" for name in ("overview", *_PARTS, *_WHOLE, *money)}
    rows = _answers(warehouse, {**files, "forecast_error": FORECAST_ERROR}, sound=True)
    sections = _sections(rows)
    shown = {section.overview["run_id"] for section in sections}
    return Report(
        written_at=now,
        labs={lab.id: lab for lab in catalog.labs()},
        phases=_phases(catalog.directory),
        totals=rows["totals"],
        sections=sections,
        forecast=rows["forecast"],
        forecast_error=[row for row in rows["forecast_error"] if row["run_id"] in shown],
        forecast_summary=rows["forecast_summary"],
        year=rows["year"],
        peaks=rows["peaks"],
        money={name: rows[f"money_{name}"] for name in _MONEY},
        prices=rows["prices"],
        extremes=rows["extremes"],
        starts=rows["starts"],
        trouble={name: rows[name] for name in TROUBLE},
    )


def _sections(rows: Mapping[str, Sequence[Row]]) -> list[Section]:
    parts = {name: _by_run(rows[name]) for name in _PARTS}
    return [
        Section(overview=variants[0], variants=variants, **{name: of.get(run, []) for name, of in parts.items()})
        for run, variants in _by_run(rows["overview"]).items()
    ]


def _by_run(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    runs: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["target"], row["lab"], row["run_id"]].append(row)
    return runs


def _answers(warehouse: WarehouseCore, files: Mapping[str, Path], *, sound: bool = False) -> dict[str, list[Row]]:
    """The answers to questions. Their text is fit to be shown: engines put what they like into an error."""
    questions = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    answers = warehouse.answers(questions, sound=sound)
    return {
        name: [
            {column: _fit(value) if isinstance(value, str) else value for column, value in row.items()} for row in rows
        ]
        for name, rows in answers.items()
    }


def _fit(text: str) -> str:
    """`text` without control characters, and no longer than a reader would read it."""
    shown = printable(text[:LONGEST_TEXT])
    return shown if len(text) <= LONGEST_TEXT else f"{shown}… ({len(text) - LONGEST_TEXT:,} more characters)"


def _phases(directory: Path) -> Sequence[Phase]:
    """Those of the folder's calendar. Labs of one's own need none: the phases are then the year's."""
    own = (directory / "calendar.yaml").is_file()
    return (load_calendar(directory) if own else load_calendar()).phases
