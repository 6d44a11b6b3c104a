"""What the pages are made of: a chapter for each target, of the year, of a phase, or of one lab.

Belongs here: which of a report's rows stand in which chapter, and in which order. Doesn't belong here: reading rows
(read.py), HTML (page.py), Markdown (markdown.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from lab_pipelines.report import forecast
from lab_pipelines.report.against import sources
from lab_pipelines.report.lab_run import Fact
from lab_pipelines.report.money import Money, money_of
from lab_pipelines.report.read import Report, Section
from lab_pipelines.report.starts import Starts, of_labs, starts_of
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.trouble import Kind, trouble_of
from lab_pipelines.report.wording import PROVENANCES, VERDICTS, Row, in_order, number, short, verdict_counts
from lab_pipelines.report.year import YearRow, year_rows


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
class Headline:
    """What one target's runs of one provenance amount to."""

    provenance: str
    facts: list[Fact]
    extremes: list[Fact]


@dataclass(frozen=True)
class Chapter:
    """What one target has to show of the year."""

    target: str
    headlines: list[Headline]
    """Measured ones first."""
    year: list[YearRow]
    """A row for each lab of the year, also for those that were not run here."""
    compared_with: str
    """What the labs' best stages are compared with; empty where nothing compares."""
    money: list[Money]
    """Of its runs together; measured and modelled apart."""
    prices: list[Row]
    starts: list[Starts]
    trouble: list[Kind]
    forecast: list[Row]
    """How far off its runs' rehearsals were, by quantity."""
    entries: list[Entry]


@dataclass(frozen=True)
class PhaseChapter:
    """What one target has to show of one phase, or of one lab."""

    target: str
    entries: list[Entry]
    money: list[Money]
    starts: list[Picture]


@dataclass(frozen=True)
class Comparison:
    """A lab's rehearsal beside one run: the tracked errors, and the picture of all of them."""

    row: Row
    """Any row of the run in the view `forecast_vs_measured`."""
    errors: list[Row]
    picture: Picture


def chapters(report: Report) -> list[Chapter]:
    """The year, target by target."""
    phases = {lab.id: f"Phase {lab.phase}" for lab in report.labs.values()}
    findings = [finding for section in report.sections for finding in section.findings]
    return [
        Chapter(
            target=target,
            headlines=_headlines(_on(target, report.totals), _on(target, report.extremes)),
            year=year_rows(report.labs, _on(target, report.year), report.peaks, findings),
            compared_with=sources(_on(target, report.peaks)),
            money=money_of(**_money(report, target), phases=phases),
            prices=_on(target, report.prices),
            starts=starts_of(_on(target, report.starts)),
            trouble=trouble_of(
                [section for section in report.sections if section.target == target],
                {name: _on(target, rows) for name, rows in report.trouble.items()},
            ),
            forecast=forecast.in_quantity_order(_on(target, report.forecast_summary)),
            entries=_entries(report, target, report.sections),
        )
        for target in report.targets
    ]


def phase_chapters(report: Report, phase: int) -> list[PhaseChapter]:
    """One phase's labs with results, target by target."""
    return _of_labs(report, [lab for lab in report.labs_with_results if report.phase_of(lab) == phase])


def lab_chapters(report: Report, lab: str) -> list[PhaseChapter]:
    """One lab, target by target; empty where it has no results."""
    return _of_labs(report, [lab])


def phases_with_results(report: Report) -> list[int]:
    """The numbers of the phases that have something to show, in order."""
    return sorted({report.phase_of(lab) for lab in report.labs_with_results})


def comparisons(report: Report, labs: Collection[str] | None = None) -> list[Comparison]:
    """The shown runs that were rehearsed, lab by lab; `labs`: of these alone."""
    runs: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.forecast:
        if labs is None or row["lab"] in labs:
            runs.setdefault((row["lab"], row["target"], row["run_id"]), []).append(row)
    errors: dict[str, list[Row]] = {}
    for row in report.forecast_error:
        errors.setdefault(row["run_id"], []).append(row)
    return [
        Comparison(rows[0], forecast.in_quantity_order(errors.get(run_id, [])), forecast.picture(rows))
        for (_, _, run_id), rows in runs.items()
    ]


def verdicts(findings: Iterable[Row]) -> str:
    """`3 confirmed, 1 refuted`."""
    return verdict_counts(Counter(finding["verdict"] for finding in findings))


def headline(report: Report) -> str:
    """How far the year has come, with verdicts on measured and on modelled numbers kept apart."""
    withdrawn = [lab for lab in report.labs_with_results if lab not in report.labs]
    done, of = len(report.labs_with_results) - len(withdrawn), len(report.labs)
    sentences = [
        f"{done or 'None'} of the year's {of} labs {'have' if done > 1 else 'has'} results{'' if done else ' yet'}."
    ]
    if withdrawn:
        sentences.append(
            f"So {'has' if len(withdrawn) == 1 else 'have'} {', '.join(withdrawn)}, no longer in the catalog."
        )
    for provenance in PROVENANCES:
        claims = verdicts(f for s in report.sections for f in s.findings if f["provenance"] == provenance)
        if claims:
            sentences.append(f"Claims tested on {provenance} numbers: {claims}.")
    return " ".join(sentences)


def price_note(total: Row) -> str:
    """A sum of money, and what it leaves out."""
    if total["usd"] is None:
        return "no price known"
    without = f", {total['runs_without_price']} runs have no price" if total["runs_without_price"] else ""
    return f"{number(total['usd'], 4)}{without}"


def _of_labs(report: Report, labs: Sequence[str]) -> list[PhaseChapter]:
    shown = [section for section in report.sections if section.lab in labs]
    return [
        PhaseChapter(
            target=target,
            entries=_entries(report, target, shown),
            money=money_of(
                [row for row in _on(target, report.money["by_lab"]) if row["lab"] in labs], by_load=[], by_day=[]
            ),
            starts=of_labs([section for section in shown if section.target == target]),
        )
        for target in in_order(section.target for section in shown)
    ]


def _entries(report: Report, target: str, sections: Sequence[Section]) -> list[Entry]:
    here = [section for section in sections if section.target == target]
    return [
        Entry(lab, report.title(lab), f"{target}-{lab}", list(group))
        for lab, group in groupby(here, key=lambda section: section.lab)
    ]


def _money(report: Report, target: str) -> dict[str, list[Row]]:
    return {name: _on(target, rows) for name, rows in report.money.items()}


def _headlines(totals: Sequence[Row], extremes: Sequence[Row]) -> list[Headline]:
    found = []
    for provenance in PROVENANCES:
        own = next((total for total in totals if total["provenance"] == provenance), None)
        if own is not None:
            superlatives = [
                Fact(f"{short(row['value'])} {row['unit']}", f"{row['superlative']}: {_where(row)}")
                for row in extremes
                if row["provenance"] == provenance
            ]
            found.append(Headline(provenance, _total_facts(own), superlatives))
    return found


def _total_facts(total: Row) -> list[Fact]:
    unknown, unpriced = total["sessions_without_gpus"], total["runs_without_price"]
    without = f", without those of {_count(unknown, 'session')} that did not record them" if unknown else ""
    unsaid = f", without {_count(unpriced, 'run')} of unknown price" if unpriced else ""
    return [
        Fact(number(total["labs"], 0), f"lab{'' if total['labs'] == 1 else 's'}, in {_count(total['runs'], 'run')}"),
        Fact(_known(total["gpu_hours"]), f"GPU-hours{without}"),
        Fact(number(total["requests_ok"], 0), "requests served"),
        Fact(number(total["output_tokens"], 0), "output tokens"),
        Fact(_known(total["usd"]), f"USD{unsaid}"),
        *_claims(total),
    ]


def _claims(total: Row) -> list[Fact]:
    tested = sum(total[verdict] for verdict in VERDICTS)
    others = verdict_counts({**total, "confirmed": 0})
    return (
        [Fact(f"{total['confirmed']} of {tested}", f"claims confirmed{f'; {others}' * bool(others)}")] if tested else []
    )


def _where(row: Row) -> str:
    variant = "" if row["variant"] == "baseline" else f" {row['variant']}"
    return f"{row['lab']}{variant} at {row['load']}"


def _count(n: int, name: str) -> str:
    return f"{number(n, 0)} {name}{'' if n == 1 else 's'}"


def _known(value: float | None) -> str:
    return "not known" if value is None else short(value)


def _on(target: str, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["target"] == target]
