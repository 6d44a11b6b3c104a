"""`Report` → Markdown: what the pages say, without the pictures. Pure.

Doesn't belong here: which rows are shown (chapters.py), the tables of load steps (stage_table.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from lab_pipelines.client_errors import told as told_of_client
from lab_pipelines.report import forecast
from lab_pipelines.report.against import against_baseline, against_markdown
from lab_pipelines.report.certainty import certainty_markdown, certainty_of
from lab_pipelines.report.chapters import chapters, headline, price_note
from lab_pipelines.report.read import Report, Section
from lab_pipelines.report.stage_table import ladders, stage_markdown
from lab_pipelines.report.wording import (
    GAP,
    Row,
    effect,
    gap_place,
    gap_variants,
    markdown_text,
    number,
    percent,
    provenance_line,
    short,
    turns_note,
    verdict_counts,
)
from lab_pipelines.report.year import YearRow, spent, times


def render_markdown(report: Report) -> str:
    """The year: headline, and for each target its totals, its labs, its money, and every run with its tables."""
    lines = ["# The year in numbers", "", headline(report)]
    for chapter in chapters(report):
        lines += ["", f"## On target {chapter.target}", ""]
        lines += _totals_markdown([total for total in report.totals if total["target"] == chapter.target])
        lines += ["", *_year_markdown(chapter.year)]
        lines += [line for money in chapter.money for line in ("", f"Money, {money.provenance}: {money.sentence}")]
        for entry in chapter.entries:
            lines += ["", f"### {markdown_text(entry.lab)} · {markdown_text(entry.title)}"]
            if entry.lab in report.labs:  # results outlive a lab that was withdrawn
                lines += ["", markdown_text(report.labs[entry.lab].question)]
            for section in entry.sections:
                lines += ["", *_section_markdown(section)]
    return "\n".join([*lines, *_forecast_markdown(report.forecast_error)]) + "\n"


def _totals_markdown(totals: Sequence[Row]) -> list[str]:
    if not totals:
        return []
    return [
        "| numbers are | labs | runs | GPU-hours | requests | output tokens | USD |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {t['provenance']} | {t['labs']} | {t['runs']} "
            f"| {GAP if t['gpu_hours'] is None else short(t['gpu_hours'])} "
            f"| {number(t['requests_ok'], 0)} | {number(t['output_tokens'], 0)} | {price_note(t)} |"
            for t in totals
        ),
    ]


def _year_markdown(rows: Sequence[YearRow]) -> list[str]:
    """A line for each lab that was run here; the others are counted in the headline."""
    if not any(row.lines for row in rows):
        return []
    return [
        "| lab | numbers are | its main claim | claims | tokens/s against L06 | USD per 1K against L06 | USD |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
        *(
            f"| {row.lab.id} {markdown_text(row.lab.title)} | {line.row['provenance']} | {_main(line.main)} "
            f"| {verdict_counts(line.row) or GAP} | {times(line.throughput)} | {times(line.price)} "
            f"| {spent(line.row)} |"
            for row in rows
            for line in row.lines
        ),
    ]


def _main(finding: Row | None) -> str:
    return GAP if finding is None else f"{finding['verdict']}: {effect(finding)}"


def _section_markdown(section: Section) -> list[str]:
    lines = [stage_markdown(section.stages)] if section.stages else [markdown_text(provenance_line(section.overview))]
    if shown := turns_note(section.variants):
        lines += ["", shown.capitalize() + "."]
    for variant in section.variants:
        if variant["refusal"] is not None:
            lines += ["", f"- **{markdown_text(variant['variant'])}** was refused: {markdown_text(variant['refusal'])}"]
    if not section.stages:
        lines += [
            "",
            *(f"- {markdown_text(step['name'])} ({step['kind']}): {step['outcome']}" for step in section.steps),
        ]
    for step in ladders(section.stages):
        if sure := certainty_of(step, section.certainty):
            lines += ["", f"How sure, step {markdown_text(step[0]['step'])}:", "", *certainty_markdown(sure)]
    if against := against_baseline(section.deltas, section.names):
        lines += ["", *against_markdown(against)]
    if section.client_errors:
        lines += ["", markdown_text(told_of_client(section.client_errors))]
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
