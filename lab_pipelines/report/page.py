"""`Report` → HTML and Markdown. Pure: the same report gives the same page.

The HTML is one file with no script, no font and no address to fetch. Whatever comes from rows is escaped: jinja2's
autoescape in the page, and the renderer's own in the pictures.

Doesn't belong here: reading rows (read.py), drawing (charts.py), the columns of the stage table (stage_table.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from lab_pipelines.report import charts
from lab_pipelines.report.charts import Picture
from lab_pipelines.report.read import Report, Section
from lab_pipelines.report.stage_table import Cell, Column, columns, ladders, notes, stage_cells, stage_markdown
from lab_pipelines.report.wording import Row, duration, effect, gap_place, markdown_text, number, origin, place, short

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Ladder:
    """One load step of a session: its table and its pictures."""

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


def render_html(report: Report) -> str:
    """The page as one self-contained HTML document."""
    return _template().render(
        report=report,
        headline=headline(report),
        labs=[(lab, _title(report, lab), list(group)) for lab, group in groupby(report.sections, key=lambda s: s.lab)],
        without_results=[lab for lab in report.labs.values() if lab.id not in report.labs_with_results],
        style=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
    )


def render_markdown(report: Report) -> str:
    """The same content without the pictures."""
    lines = ["# The year in numbers", "", headline(report), "", *_totals_markdown(report.totals)]
    for lab, sections in groupby(report.sections, key=lambda s: s.lab):
        lines += ["", f"## {markdown_text(lab)} · {markdown_text(_title(report, lab))}"]
        if lab in report.labs:  # results outlive a lab that was withdrawn
            lines += ["", markdown_text(report.labs[lab].question)]
        for section in sections:
            lines += ["", *_section_markdown(section)]
    return "\n".join(lines) + "\n"


def headline(report: Report) -> str:
    """How far the year has come, with verdicts on measured and on modelled numbers kept apart."""
    done, of = len(report.labs_with_results), len(report.labs)
    if not done:
        return f"None of the year's {of} labs has results yet."
    have = "has" if done == 1 else "have"
    sentences = [f"{done} of the year's {of} labs {have} results."]
    for provenance in ("measured", "modelled"):
        verdicts = Counter(f["verdict"] for s in report.sections for f in s.findings if f["provenance"] == provenance)
        if verdicts:
            claims = ", ".join(f"{verdicts[v]} {v}" for v in ("confirmed", "refuted", "inconclusive") if verdicts[v])
            sentences.append(f"Claims tested on {provenance} numbers: {claims}.")
    return " ".join(sentences)


def facts(section: Section) -> list[Fact]:
    """The numbers to remember of one session: its fastest, its slowest start, its cheapest stage, its cold start."""
    found = []
    if fastest := _best(section.stages, "output_tokens_per_s"):
        found.append(Fact(f"{short(fastest['output_tokens_per_s'])} tokens/s", f"highest output, at {fastest['load']}"))
    gets = [row for row in section.stages if row["request_kind"] == "http"]
    if busiest := _best(gets, "requests_per_s"):
        found.append(Fact(f"{short(busiest['requests_per_s'])} requests/s", f"most GETs served, at {busiest['load']}"))
    found += _from_low_to_high(section.stages, "ttft_p50_s", "median TTFT", "s")
    found += _from_low_to_high(gets, "e2e_p50_s", "median latency of a GET", "ms", factor=1000)
    if cheapest := _best(section.stages, "usd_per_1k_tokens", lowest=True):
        found.append(Fact(f"{short(cheapest['usd_per_1k_tokens'])} USD", f"cheapest 1K tokens, at {cheapest['load']}"))
    if section.overview["cold_start_s"] is not None:
        found.append(Fact(duration(section.overview["cold_start_s"]), "from request to first token"))
    return found


def session_ladders(section: Section) -> list[Ladder]:
    """The load steps of a session, each with its table and the pictures against its load."""
    return [
        Ladder(
            step=rows[0]["step"],
            columns=columns(rows),
            cells=(cells := stage_cells(rows)),
            notes=notes(cells),
            pictures=charts.of_ladder(rows),
        )
        for rows in ladders(section.stages)
    ]


def session_pictures(section: Section) -> list[Picture]:
    """The pictures of a session as a whole. A stack without an engine has no first token to wait for."""
    has_engine = section.overview["engine"] != "none"
    return [
        *([charts.cold_start(section.cold_start, section.overview)] if has_engine else []),
        charts.cost_split(section.cost, section.overview),
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


def _section_markdown(section: Section) -> list[str]:
    lines = [stage_markdown(section.stages)]
    if section.findings:
        lines += ["", *(_finding_markdown(finding) for finding in section.findings)]
    if section.gaps:
        lines += ["", "Gaps:", ""]
        lines += [
            f"- {markdown_text(gap['measure'])}, {gap_place(gap)}: {markdown_text(gap['reason'])}"
            for gap in section.gaps
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
        "session_ladders": session_ladders,
        "session_pictures": session_pictures,
    }
    environment.filters |= {
        "effect": effect,
        "gap_place": gap_place,
        "origin": origin,
        "place": place,
        "price_note": price_note,
        "whole": lambda value: number(value, 0),
        "drawn": Markup,  # a picture's SVG, whose text the renderer has escaped
    }
    return environment.get_template("page.html.j2")
