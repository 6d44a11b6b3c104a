"""How sure the numbers of a load step are: intervals, what they rest on, and whether the stage was steady.

Belongs here: which quantities are shown for which load, and their words. Doesn't belong here: the intervals themselves
(lab_pipelines/statistics), the table of the numbers (stage_table.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab_pipelines.report.wording import GAP, Row, in_order, markdown_text, number, percent, short

_STATES = {"steady": "steady", "trend": "trend", "level_shift": "level shift"}
_COMPLETIONS = (
    ("throughput", "output, tokens/s", 1),
    ("ttft_p50", "TTFT p50, s", 1),
    ("ttft_p95", "TTFT p95, s", 1),
)
_GETS = (("e2e_p50", "latency p50, ms", 1000), ("e2e_p95", "latency p95, ms", 1000))
NOTE = (
    "A 95 % interval under each number. In brackets how many requests it rests on (throughput: slices of time), and as "
    "how many independent ones they count. A number without its warm-up may differ from the table above."
)


@dataclass(frozen=True)
class Sure:
    """One number of a stage."""

    value: str
    interval: str
    """Empty where there is none."""
    rests_on: str


@dataclass(frozen=True)
class Stage:
    load: str
    variant: str
    cells: list[Sure]
    steady: str
    """In a word; with the relative change where it wasn't."""
    moved: bool
    left_out: str
    """Empty where no warm-up was found."""


@dataclass(frozen=True)
class Certainty:
    """How sure one load step's numbers are, stage by stage."""

    headers: list[str]
    several: bool
    """Whether the stages are of several variants."""
    stages: list[Stage]
    notes: list[str]


def certainty_of(stages: Sequence[Row], intervals: Sequence[Row]) -> Certainty | None:
    """Of one ladder's rows of `stage_table`, from a run's rows of report/sql/certainty.sql; None where none tells."""
    shown = _GETS if stages[0]["request_kind"] == "http" else _COMPLETIONS
    known: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in intervals:
        known.setdefault((row["session_id"], row["step"], row["stage"]), {})[row["quantity"]] = row
    told = [(stage, known.get((stage["session_id"], stage["step"], stage["stage"]), {})) for stage in stages]
    if not any(name in of for _, of in told for name, _, _ in shown):
        return None
    several = len({stage["variant"] for stage in stages}) > 1
    return Certainty(
        headers=[header for _, header, _ in shown],
        several=several,
        stages=[
            Stage(
                load=stage["load"],
                variant=stage["variant"],
                cells=[_sure(of.get(name), factor) for name, _, factor in shown],
                steady=_steady(next(iter(of.values()), None)),
                moved=any(row["stage_state"] in ("trend", "level_shift") for row in of.values()),
                left_out=_left_out(max((row["left_out"] for row in of.values()), default=0)),
            )
            for stage, of in told
        ],
        notes=[NOTE, *_refusals(told, shown, several=several)],
    )


def certainty_markdown(found: Certainty) -> list[str]:
    """The same as a Markdown table and its notes."""
    lead = ["load", *(["variant"] if found.several else [])]
    lines = [
        "| " + " | ".join([*lead, *found.headers, "the stage was"]) + " |",
        "|" + " --- |" * len(lead) + " ---: |" * len(found.headers) + " --- |",
    ]
    for stage in found.stages:
        cells = [stage.load, *([stage.variant] if found.several else [])]
        cells += [
            " ".join(filter(None, (one.value, one.interval and f"[{one.interval}]", one.rests_on)))
            for one in stage.cells
        ]
        cells += [", ".join(filter(None, (stage.steady, stage.left_out)))]
        lines.append("| " + " | ".join(markdown_text(cell) for cell in cells) + " |")
    return [*lines, "", " ".join(markdown_text(note) for note in found.notes)]


def _sure(row: Row | None, factor: float) -> Sure:
    if row is None or row["value"] is None:
        return Sure(GAP, "", "")
    worth = "" if row["n_effective"] is None or row["n_effective"] >= row["n"] else f", worth {row['n_effective']:.0f}"
    interval = "" if row["low"] is None else f"{short(row['low'] * factor)} to {short(row['high'] * factor)}"
    return Sure(short(row["value"] * factor), interval, f"({number(row['n'], 0)}{worth})" if interval else "")


def _steady(row: Row | None) -> str:
    """Of the requests' whole latency: one word for the stage."""
    state = None if row is None else row["stage_state"]
    if row is None or state not in _STATES:
        return "not known"
    moved = state != "steady" and row["stage_drift"] is not None
    return f"{_STATES[state]} {percent(row['stage_drift'], signed=True)}" if moved else _STATES[state]


def _left_out(requests: int) -> str:
    return f"first {requests} left out" if requests else ""


def _refusals(
    told: Sequence[tuple[Row, dict[str, Row]]], shown: Sequence[tuple[str, str, int]], *, several: bool
) -> list[str]:
    """Why numbers have no interval: a quantity's reasons, with the loads concerned."""
    notes = []
    for name, header, _ in shown:
        where: dict[str, list[str]] = {}
        for stage, of in told:
            row = of.get(name)
            if row is not None and row["value"] is not None and row["low"] is None and row["reason"]:
                place = f"{stage['variant']} at {stage['load']}" if several else stage["load"]
                where.setdefault(row["reason"], []).append(place)
        if where:
            said = "; ".join(f"{', '.join(in_order(places))}: {reason}" for reason, places in where.items())
            notes.append(f"No interval of {header.partition(',')[0]}: {said}.")
    return notes
