"""The table of a run with load stages, as the terminal shows it, with its findings and gaps.

Doesn't belong here: which columns it has and how many digits (lab_pipelines/report/stage_table.py).
"""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from lab_pipelines.cli.console import console, print_table, say
from lab_pipelines.report.read import Section
from lab_pipelines.report.stage_table import Cell, columns, ladders, notes, range_notes, stage_cells
from lab_pipelines.report.wording import (
    AT_FAULT,
    OUTSIDE,
    ROUGH,
    duration,
    effect,
    gap_place,
    gap_variants,
    provenance_line,
    turns_note,
)

COMFORTABLE_WIDTH = 96
"""Terminal columns with which the table is airy; below, it is tight."""


def print_section(section: Section) -> None:
    """One run: provenance, a table for each of its load steps, or of its steps if it sent no load, findings, gaps."""
    out = console()
    say(provenance_line(section.overview))
    if shown := turns_note(section.variants):
        say(shown)
    for variant in section.variants:
        if variant["refusal"] is not None:
            say(f"{variant['variant']} was refused: {variant['refusal']}")
    if not section.stages:
        lines = [[step["name"], step["kind"], step["outcome"], duration(step["duration_s"])] for step in section.steps]
        print_table(["step", "kind", "outcome", "took"], lines, right=[3])
    steps = ladders(section.stages)
    for rows in steps:
        if len(steps) > 1:
            say(f"\n{rows[0]['step']}", style="bold")
        cells = stage_cells(rows)
        gap = 1 if out.width >= COMFORTABLE_WIDTH else 0
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), pad_edge=False)
        for column in columns(rows):
            header = "\n".join(column.header.replace(",", "").split())
            table.add_column(header, justify="left" if column.text else "right", no_wrap=True, vertical="bottom")
        for line in cells:
            table.add_row(*(Text(_marked(cell)) for cell in line))
        out.print(table)
        for note in notes(cells):
            say(note, style="dim")
    for reason in range_notes(section.stages):
        say(f"{OUTSIDE} {reason}", style="dim")
    for finding in section.findings:
        say(f"{finding['verdict']}: {finding['claim']} ({effect(finding)}; {finding['reason']})")
    for gap in section.gaps:
        say(f"gap: {gap['measure']}, {gap_place(gap)}{gap_variants(gap, section.names)}: {gap['reason']}", style="dim")


def _marked(cell: Cell) -> str:
    """As on the pages, without the blanks: a terminal has fewer columns."""
    return f"{ROUGH * cell.rough}{cell.text}{OUTSIDE * cell.outside}{AT_FAULT * (cell.at_fault is not None)}"
