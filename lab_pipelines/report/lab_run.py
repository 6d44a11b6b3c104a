"""One run of a lab as a reader meets it: the numbers to remember, its load steps with their tables, its pictures.

Belongs here: what is picked from a `Section`, and in which order. Doesn't belong here: reading rows (read.py), drawing
(charts.py, figures.py), the page around it (page.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.report import charts, figures
from lab_pipelines.report.certainty import Certainty, certainty_of
from lab_pipelines.report.read import Section
from lab_pipelines.report.stage_table import Cell, Column, columns, ladders, notes, stage_cells
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.wording import Row, duration, loads_of, short


@dataclass(frozen=True)
class Ladder:
    """One load step of a run: its table, with its variants side by side, and its pictures."""

    step: str
    columns: tuple[Column, ...]
    cells: list[list[Cell]]
    notes: list[str]
    certainty: Certainty | None
    """None for runs from before intervals were kept."""
    pictures: list[Picture]


@dataclass(frozen=True)
class Fact:
    """One number that the section opens with."""

    value: str
    says: str


def facts(section: Section, variant: Row) -> list[Fact]:
    """The numbers to remember of one variant: its fastest, its slowest start, its cheapest stage, its cold start."""
    stages = [row for row in section.stages if row["session_id"] == variant["session_id"]]
    found = []
    if fastest := _best(stages, "output_tokens_per_s"):
        found.append(Fact(f"{short(fastest['output_tokens_per_s'])} tokens/s", f"highest output, at {fastest['load']}"))
    gets = [row for row in stages if row["request_kind"] == "http"]
    if busiest := _best(gets, "requests_per_s"):
        found.append(Fact(f"{short(busiest['requests_per_s'])} requests/s", f"most GETs served, at {busiest['load']}"))
    found += _from_low_to_high(stages, "ttft_p50_s", "median TTFT", "s")
    found += _from_low_to_high(gets, "e2e_p50_s", "median latency of a GET", "ms", factor=1000)
    if cheapest := _best(stages, "usd_per_1k_tokens", lowest=True):
        found.append(Fact(f"{short(cheapest['usd_per_1k_tokens'])} USD", f"cheapest 1K tokens, at {cheapest['load']}"))
    if variant["cold_start_s"] is not None and variant["engine"] != "none":
        found.append(Fact(duration(variant["cold_start_s"]), "from request to first token"))
    return found


def run_ladders(section: Section, *, pictures: bool) -> list[Ladder]:
    """The load steps of a run, each with its table; and, unless the spec has figures, the pictures against its load."""
    return [
        Ladder(
            step=rows[0]["step"],
            columns=columns(rows),
            cells=(cells := stage_cells(rows)),
            notes=notes(cells),
            certainty=certainty_of(rows, section.certainty),
            pictures=charts.of_ladder(rows) if pictures else [],
        )
        for rows in ladders(section.stages)
    ]


def run_figures(section: Section, lab: Identity | None) -> list[Picture]:
    """The pictures that the lab's spec asks for."""
    return [figures.draw(figure, section) for figure in lab.figures] if isinstance(lab, LabSpec) else []


def run_pictures(section: Section) -> list[Picture]:
    """The pictures of a run as a whole. A stack without an engine has no first token to wait for."""
    walked = [variant["session_id"] for variant in section.variants]
    cold_start, cost = (
        sorted(rows, key=lambda row: walked.index(row["session_id"])) for rows in (section.cold_start, section.cost)
    )
    has_engine = section.overview["engine"] != "none"
    return [
        *([charts.cold_start(cold_start, section.overview)] if has_engine else []),
        charts.cost_split(cost, section.overview),
    ]


def _from_low_to_high(rows: Sequence[Row], key: str, says: str, unit: str, factor: float = 1.0) -> list[Fact]:
    """A latency at the lowest and the highest load of the longest ladder; other ladders may not compare with it."""
    longest = max(ladders([row for row in rows if row[key] is not None]), key=len, default=[])
    if not longest:
        return []
    ordered = sorted(longest, key=loads_of)
    first, last = ordered[0], ordered[-1]
    value = f"{short(first[key] * factor)} {unit}"
    if len(ordered) == 1:
        return [Fact(value, f"{says}, at {first['load']}")]
    # "1 → 32 users" reads better than "1 user → 32 users".
    low = str(first["users"]) if first["profile"] == "ramp" else first["load"]
    return [Fact(f"{value} → {short(last[key] * factor)} {unit}", f"{says}, at {low} → {last['load']}")]


def _best(rows: Sequence[Row], key: str, *, lowest: bool = False) -> Row | None:
    known = [row for row in rows if row[key] is not None]
    return (min if lowest else max)(known, key=lambda r: r[key]) if known else None
