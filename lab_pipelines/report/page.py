"""`Report` → HTML and Markdown. Pure: the same report gives the same page.

The HTML is one file with no script, no font and no address to fetch. Whatever comes from rows is escaped: jinja2's
autoescape in the page, and the renderer's own in the pictures.

The page has a chapter for each target, so that no chart or table ever shows two; the last chapter alone, forecast
against measured, sets one beside another.

Doesn't belong here: reading rows (read.py), drawing (charts.py, figures.py, forecast.py), the columns of the stage
table (stage_table.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from lab_pipelines.catalog.spec import Identity, LabSpec
from lab_pipelines.report import charts, figures, forecast
from lab_pipelines.report.money import Money, money_of
from lab_pipelines.report.read import Report, Section
from lab_pipelines.report.stage_table import (
    Cell,
    Column,
    columns,
    ladders,
    notes,
    range_notes,
    stage_cells,
    stage_markdown,
)
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.wording import (
    GAP,
    Row,
    duration,
    effect,
    gap_place,
    gap_variants,
    markdown_text,
    number,
    origin,
    percent,
    place,
    provenance_line,
    short,
)
from lab_pipelines.report.year import YearRow, year_rows

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Ladder:
    """One load step of a run: its table, with its variants side by side, and its pictures."""

    step: str
    columns: tuple[Column, ...]
    cells: list[list[Cell]]
    notes: list[str]
    pictures: list[Picture]


@dataclass(frozen=True)
class Fact:
    """One number that the section opens with."""

    value: str
    says: str


@dataclass(frozen=True)
class Entry:
    """One lab of a chapter."""

    lab: str
    title: str
    anchor: str
    sections: list[Section]

    @property
    def verdicts(self) -> str:
        """What came of its claims, in short."""
        return verdicts(f for section in self.sections for f in section.findings)


@dataclass(frozen=True)
class Chapter:
    """What one target has to show."""

    target: str
    entries: list[Entry]
    money: list[Money]
    """Of its runs together; measured and modelled apart."""


@dataclass(frozen=True)
class Comparison:
    """A lab's rehearsal beside one run: the tracked errors, and the picture of all of them."""

    row: Row
    """Any row of the run in the view `forecast_vs_measured`."""
    errors: list[Row]
    picture: Picture


def render_html(report: Report) -> str:
    """The page as one self-contained HTML document."""
    return _template().render(
        report=report,
        headline=headline(report),
        chapters=chapters(report),
        comparisons=comparisons(report),
        year=year_rows(report.labs, report.year, report.references),
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
    )


def render_markdown(report: Report) -> str:
    """The same content without the pictures."""
    lines = ["# The year in numbers", "", headline(report), "", *_totals_markdown(report.totals)]
    lines += ["", *_year_markdown(year_rows(report.labs, report.year, report.references))]
    for chapter in chapters(report):
        lines += ["", f"## On target {chapter.target}"]
        lines += [line for money in chapter.money for line in ("", f"Money, {money.provenance}: {money.sentence}")]
        for entry in chapter.entries:
            lines += ["", f"### {markdown_text(entry.lab)} · {markdown_text(entry.title)}"]
            if entry.lab in report.labs:  # results outlive a lab that was withdrawn
                lines += ["", markdown_text(report.labs[entry.lab].question)]
            for section in entry.sections:
                lines += ["", *_section_markdown(section)]
    return "\n".join([*lines, *_forecast_markdown(report.forecast_error)]) + "\n"


def chapters(report: Report) -> list[Chapter]:
    """The labs with results, target by target."""
    return [
        Chapter(
            target=target,
            entries=[
                Entry(lab, _title(report, lab), f"{target}-{lab}", list(group))
                for lab, group in groupby([s for s in report.sections if s.target == target], key=lambda s: s.lab)
            ],
            money=money_of(**{name: _on(target, rows) for name, rows in report.money.items()}),
        )
        for target in report.targets
    ]


def comparisons(report: Report) -> list[Comparison]:
    """The shown runs that were rehearsed, lab by lab."""
    runs: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.forecast:
        runs.setdefault((row["lab"], row["target"], row["run_id"]), []).append(row)
    return [
        Comparison(
            row=rows[0],
            errors=forecast.in_quantity_order([row for row in report.forecast_error if row["run_id"] == run_id]),
            picture=forecast.picture(rows),
        )
        for (_, _, run_id), rows in runs.items()
    ]


def verdicts(findings: Iterable[Row]) -> str:
    """`3 confirmed, 1 refuted`."""
    count = Counter(finding["verdict"] for finding in findings)
    return ", ".join(f"{count[v]} {v}" for v in ("confirmed", "refuted", "inconclusive") if count[v])


def headline(report: Report) -> str:
    """How far the year has come, with verdicts on measured and on modelled numbers kept apart."""
    done, of = len(report.labs_with_results), len(report.labs)
    if not done:
        return f"None of the year's {of} labs has results yet."
    have = "has" if done == 1 else "have"
    sentences = [f"{done} of the year's {of} labs {have} results."]
    for provenance in ("measured", "modelled"):
        claims = verdicts(f for s in report.sections for f in s.findings if f["provenance"] == provenance)
        if claims:
            sentences.append(f"Claims tested on {provenance} numbers: {claims}.")
    return " ".join(sentences)


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


def price_note(total: Row) -> str:
    """A sum of money, and what it leaves out."""
    if total["usd"] is None:
        return "no price known"
    without = f", {total['runs_without_price']} runs have no price" if total["runs_without_price"] else ""
    return f"{number(total['usd'], 4)}{without}"


def _from_low_to_high(rows: Sequence[Row], key: str, says: str, unit: str, factor: float = 1.0) -> list[Fact]:
    """A latency at the lowest and the highest load of the longest ladder; other ladders may not compare with it."""
    longest = max(ladders([row for row in rows if row[key] is not None]), key=len, default=[])
    if not longest:
        return []
    ordered = sorted(longest, key=lambda row: row["offered_per_s"] if row["users"] is None else row["users"])
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


def _on(target: str, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["target"] == target]


def _title(report: Report, lab: str) -> str:
    identity = report.labs.get(lab)
    return identity.title if identity else "not in the catalog"


def _totals_markdown(totals: Sequence[Row]) -> list[str]:
    if not totals:
        return []
    return [
        "| target | provenance | labs | runs | requests | output tokens | USD |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {markdown_text(t['target'])} | {t['provenance']} | {t['labs']} | {t['runs']} "
            f"| {number(t['requests_ok'], 0)} | {number(t['output_tokens'], 0)} | {price_note(t)} |"
            for t in totals
        ),
    ]


def _year_markdown(rows: Sequence[YearRow]) -> list[str]:
    """A line for each lab and place; labs without results have none, and are counted in the headline."""
    if not any(row.lines for row in rows):
        return []
    return [
        "| lab | where | numbers are | claims | tokens/s against L06 | USD per 1K against L06 | USD |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        *(
            f"| {row.lab.id} {markdown_text(row.lab.title)} | {line.row['target']} | {line.row['provenance']} "
            f"| {claims(line.row) or GAP} | {times(line.throughput)} | {times(line.price)} | {spent(line.row)} |"
            for row in rows
            for line in row.lines
        ),
    ]


def claims(row: Row) -> str:
    """`3 confirmed, 1 refuted`, from counts by verdict."""
    return ", ".join(f"{row[v]} {v}" for v in ("confirmed", "refuted", "inconclusive") if row[v])


def times(ratio: float | None) -> str:
    """A ratio to the baseline."""
    return GAP if ratio is None else f"{short(ratio)} x"


def spent(row: Row) -> str:
    """What all runs of a lab in one place cost, and how many have no price."""
    if row["usd"] is None:
        return "no price known"
    return short(row["usd"]) + (f", {row['unpriced_runs']} runs without a price" if row["unpriced_runs"] else "")


def _section_markdown(section: Section) -> list[str]:
    lines = [stage_markdown(section.stages)] if section.stages else [markdown_text(provenance_line(section.overview))]
    for variant in section.variants:
        if variant["refusal"] is not None:
            lines += ["", f"- **{markdown_text(variant['variant'])}** was refused: {markdown_text(variant['refusal'])}"]
    if not section.stages:
        lines += [
            "",
            *(f"- {markdown_text(step['name'])} ({step['kind']}): {step['outcome']}" for step in section.steps),
        ]
    if section.findings:
        lines += ["", *(_finding_markdown(finding) for finding in section.findings)]
    if section.gaps:
        lines += ["", "Gaps:", ""]
        lines += [
            f"- {markdown_text(gap['measure'])}, {gap_place(gap)}{markdown_text(gap_variants(gap, section.names))}: "
            f"{markdown_text(gap['reason'])}"
            for gap in section.gaps
        ]
    return lines


def _forecast_markdown(errors: Sequence[Row]) -> list[str]:
    if not errors:
        return []
    runs = {(row["lab"], row["target"], row["run_id"]): row for row in errors}
    lines = ["", "## Forecast against measured"]
    for (lab, _, run_id), first in runs.items():
        lines += ["", f"**{markdown_text(lab)}** · {markdown_text(forecast.against(first))} · run {run_id}", ""]
        lines += [
            "| quantity | compared | median error | worst error | worst at |",
            "| --- | ---: | ---: | ---: | --- |",
        ]
        lines += [
            f"| {forecast.QUANTITIES[row['quantity']]} | {row['compared']} | {percent(row['median_abs_error'])} "
            f"| {percent(row['worst_abs_error'])} | {markdown_text(row['worst_at'])} |"
            for row in forecast.in_quantity_order([one for one in errors if one["run_id"] == run_id])
        ]
    return lines


def _finding_markdown(finding: Row) -> str:
    return (
        f"- **{finding['verdict']}**: {markdown_text(finding['claim'])} ({effect(finding)}, "
        f"n = {finding['n']}); {markdown_text(finding['reason'])}"
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "facts": facts,
        "quantities": forecast.QUANTITIES,
        "run_figures": run_figures,
        "run_ladders": run_ladders,
        "run_pictures": run_pictures,
    }
    environment.filters |= {
        "against": forecast.against,
        "claims": claims,
        "spent": spent,
        "times": times,
        "duration": duration,
        "effect": effect,
        "gap_place": gap_place,
        "gap_variants": gap_variants,
        "origin": origin,
        "percent": percent,
        "place": place,
        "price_note": price_note,
        "range_notes": range_notes,
        "whole": lambda value: number(value, 0),
        "drawn": Markup,  # a picture's SVG, whose text the renderer has escaped
    }
    return environment.get_template("page.html.j2")
