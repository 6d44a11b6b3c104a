"""`Report` → HTML: the year's page, one for each phase, one for a single lab. Pure: the same report gives the same.

Every page is one file with no script, no font and no address to fetch; links between them are relative. Whatever comes
from rows is escaped: jinja2's autoescape in the page, and the renderer's own in the pictures.

A page has a chapter for each target, so that no chart or table ever shows two; the chapter on forecast against measured
alone sets one beside another.

Doesn't belong here: reading rows (read.py), what a chapter holds (chapters.py), one run (lab_run.py), Markdown
(markdown.py), files (write.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lab_pipelines.client_errors import told
from lab_pipelines.report import forecast
from lab_pipelines.report.against import NOTE, against_baseline
from lab_pipelines.report.chapters import (
    chapters,
    comparisons,
    headline,
    lab_chapters,
    phase_chapters,
    phases_with_results,
    price_note,
)
from lab_pipelines.report.lab_run import facts, run_figures, run_ladders, run_pictures
from lab_pipelines.report.read import Report
from lab_pipelines.report.stage_table import range_notes
from lab_pipelines.report.starts import machine_name
from lab_pipelines.report.wording import (
    GAP,
    duration,
    effect,
    gap_place,
    gap_variants,
    number,
    origin,
    percent,
    place,
    short,
    turns_note,
    verdict_counts,
)
from lab_pipelines.report.year import spent, times, year_rows

_FOLDER = Path(__file__).parent
YEAR = "year_in_numbers.html"


def phase_file(number: int) -> str:
    """The name of a phase's page."""
    return f"phase-{number}.html"


def lab_file(lab: str) -> str:
    """The name of a lab's own page."""
    return f"{lab}.html"


def render_pages(report: Report) -> dict[str, str]:
    """The year's page and those of the phases with results, by file name."""
    return {YEAR: render_year(report)} | {
        phase_file(number): render_phase(report, number) for number in phases_with_results(report)
    }


def render_year(report: Report) -> str:
    """The year's page."""
    return _render(
        "year.html.j2",
        report,
        headline=headline(report),
        chapters=chapters(report),
        nothing_yet=year_rows(report.labs, [], [], []),
        written=phases_with_results(report),
    )


def render_phase(report: Report, number: int) -> str:
    """The page of one phase (`read.WITHDRAWN`: of labs that left the catalog): its labs with results, by target."""
    return _render(
        "phase.html.j2",
        report,
        number=number,
        motto=report.phases[number - 1].motto if number else "",
        chapters=phase_chapters(report, number),
        comparisons=comparisons(report, [lab for lab in report.labs_with_results if report.phase_of(lab) == number]),
        written=phases_with_results(report),
    )


def render_lab(report: Report, lab: str) -> str:
    """One lab's page alone; it links to no other."""
    return _render(
        "lab.html.j2",
        report,
        lab=lab,
        title=report.title(lab),
        chapters=lab_chapters(report, lab),
        comparisons=comparisons(report, [lab]),
    )


def prose(text: str) -> Markup:
    """A spec's sentence; what stands in backticks there is code."""
    words, *quoted = str(text).split("`")
    if len(quoted) % 2:
        return escape(text)
    pairs = zip(quoted[::2], quoted[1::2], strict=True)
    return Markup("").join([escape(words), *(Markup("<code>{}</code>{}").format(*pair) for pair in pairs)])


def _render(template: str, report: Report, **values: Any) -> str:
    return _template(template).render(report=report, **values)


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    globals_: Mapping[str, Any] = {
        "facts": facts,
        "lab_file": lab_file,
        "phase_file": phase_file,
        "ratios_note": NOTE,
        "quantities": forecast.QUANTITIES,
        "run_figures": run_figures,
        "run_ladders": run_ladders,
        "run_pictures": run_pictures,
        "style": Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        "year_file": YEAR,
    }
    environment.globals |= globals_
    environment.filters |= {
        "against": forecast.against,
        "against_baseline": against_baseline,
        "client_told": told,
        "duration": duration,
        "effect": effect,
        "gap_place": gap_place,
        "gap_variants": gap_variants,
        "machine": machine_name,
        "origin": origin,
        "percent": percent,
        "place": place,
        "price_note": price_note,
        "prose": prose,
        "range_notes": range_notes,
        "turns_note": turns_note,
        "short": lambda value: GAP if value is None else short(value),
        "spent": spent,
        "times": times,
        "verdicts": verdict_counts,
        "whole": lambda value: number(value, 0),
        "drawn": Markup,  # a picture's SVG, whose text the renderer has escaped
    }
    return environment.get_template(name)
