"""The year's cold starts: from the request for a stack to its first token, machine by machine and lab by lab.

Belongs here: how cold starts of several sessions read and look. Doesn't belong here: which sessions are shown
(sql/starts.sql), the cold start of one run (charts.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from lab_pipelines.report.axes import SERIES
from lab_pipelines.report.charts import stacked_picture
from lab_pipelines.report.read import Section
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.wording import PROVENANCES, Row, duration

PHASES = {
    "node_ready": "node",
    "driver_ready": "driver",
    "image_pulled": "image",
    "model_loaded": "model",
    "engine_ready": "engine",
    "first_token": "first token",
}
"""The view's phases, as a person calls them, in the order in which they happen."""
_COLOURS = dict(zip(PHASES.values(), SERIES, strict=False))


@dataclass(frozen=True)
class Starts:
    """The cold starts of one target and provenance."""

    provenance: str
    machines: list[Row]
    """One row of sql/starts.sql for each machine type, and for whether its node was up."""
    pictures: list[Picture]


def starts_of(rows: Sequence[Row]) -> list[Starts]:
    """Of one target; measured first. `rows` are those of sql/starts.sql."""
    found = []
    for provenance in PROVENANCES:
        own = [row for row in rows if row["provenance"] == provenance]
        machines = [list(phases) for _, phases in groupby(own, key=_machine_key)]
        if machines:
            from_zero = [one for one in machines if one[0]["from_zero"]]
            node_up = [one for one in machines if not one[0]["from_zero"]]
            titled = {"Cold start from zero nodes": from_zero, "Start on a node that is up": node_up}
            pictures = [_of_machines(one, title) for title, one in titled.items() if one]
            found.append(Starts(provenance, [phases[0] for phases in machines], pictures))
    return found


def of_labs(sections: Sequence[Section]) -> list[Picture]:
    """The first cold start of each lab's newest run, of one target; measured and modelled apart. None for one lab."""
    pictures = []
    for provenance in PROVENANCES:
        first = {
            section.lab: section
            for section in reversed(sections)  # of a lab's runs the newest comes first, and so is kept
            if section.overview["provenance"] == provenance and section.cold_start
        }
        if len(first) > 1:
            labs = {lab: _first_start(first[lab].cold_start) for lab in sorted(first)}
            row = {"target": sections[0].target, "provenance": provenance, "lab": "all labs of the phase"}
            title = "Cold start of each lab"
            pictures.append(_stacked(title, labs, row, ["the first session of its newest run"]))
    return pictures


def machine_name(row: Row) -> str:
    """A machine type, and how many of it a stack holds."""
    name = (row["sku"] or "unknown machine").removeprefix("Standard_")
    return name if row["nodes"] == 1 else f"{row['nodes']} x {name}"


def _of_machines(machines: Sequence[Sequence[Row]], title: str) -> Picture:
    first = machines[0][0]
    row = {"target": first["target"], "provenance": first["provenance"], "lab": "all labs"}
    named = {machine_name(phases[0]): phases for phases in machines}
    return _stacked(title, named, row, ["the median session of each machine type, phase by phase"])


def _stacked(title: str, bars: Mapping[str, Sequence[Row]], row: Row, subtitle: list[str]) -> Picture:
    return stacked_picture(
        title,
        [(name, PHASES[phase["phase"]], phase["duration_s"]) for name, phases in bars.items() for phase in phases],
        {name: duration(phases[0]["cold_start_s"]) for name, phases in bars.items()},
        "stack seconds, to the first token",
        row,
        _COLOURS,
        subtitle=subtitle,
    )


def _first_start(rows: Sequence[Row]) -> list[Row]:
    first = min(rows, key=lambda row: (row["requested_at"], row["session_id"]))["session_id"]
    return [row for row in rows if row["session_id"] == first]


def _machine_key(row: Row) -> tuple[bool, str, int]:
    return row["from_zero"], row["sku"] or "", row["nodes"]
