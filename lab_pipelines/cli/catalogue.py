"""`labs list`, `labs calendar`: the year as a whole.

Doesn't belong here: a single lab (lab_page.py, plans.py), the rules of specs (lab_pipelines/catalog/).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_list, print_table, say
from lab_pipelines.cli.lab_page import NO_GPU, dates, erratum_line, gpu_labels, gpu_name, status_of
from lab_pipelines.cli.options import JsonOption

if TYPE_CHECKING:
    from lab_pipelines.catalog.calendar import Calendar
    from lab_pipelines.catalog.prices import PriceSheet
    from lab_pipelines.catalog.spec import LabSpec, Outline

STATUSES = ("complete", "outline")
KINDS = ("chaos", "finops", "integration", "consolidation")


def _among(names: Sequence[str]) -> Callable[[str], list[str]]:
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def _phase_names(incomplete: str) -> list[str]:
    from lab_pipelines.catalog.calendar import load_calendar

    names = [name for phase in load_calendar().phases for name in (str(phase.number), phase.name)]
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def _gpu_names(incomplete: str) -> list[str]:
    from lab_pipelines.catalog.prices import load_prices

    sheet = load_prices()
    names = {(sheet.sku(sku).gpu or NO_GPU).split("-")[0] for sku in sheet.offered()}
    return sorted(name for name in names if name.lower().startswith(incomplete.lower()))


def list_labs(
    phase: Annotated[
        str | None, typer.Option(help="A phase's number, or the beginning of its name.", autocompletion=_phase_names)
    ] = None,
    gpu: Annotated[str | None, typer.Option(help=f"T4, A100, …, or {NO_GPU}.", autocompletion=_gpu_names)] = None,
    status: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(STATUSES)}.", autocompletion=_among(STATUSES))
    ] = None,
    kind: Annotated[str | None, typer.Option(help=f"One of {', '.join(KINDS)}.", autocompletion=_among(KINDS))] = None,
    week: Annotated[int | None, typer.Option(help="A week's number.", min=1, max=45)] = None,
    as_json: JsonOption = False,
) -> None:
    """The year's labs; several filters narrow the list together."""
    from lab_pipelines.catalog.calendar import load_calendar
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.catalog.prices import load_prices

    for option, value, known in (("--status", status, STATUSES), ("--kind", kind, KINDS)):
        if value is not None and value not in known:
            fail(f"{option} {value}: expected one of {', '.join(known)}", code=WRONG_CALL)
    with explained(SpecError):
        catalog, calendar_, sheet = load_catalog(), load_calendar(), load_prices()
        number = None if phase is None else _phase_number(calendar_, phase)
        rows = [_row(lab, calendar_, sheet) for lab in catalog.labs()]
    if gpu is not None and not any(_has_gpu(row, gpu) for row in rows):
        known = sorted({name for row in rows for name in _gpus_of(row)})
        fail(f"--gpu {gpu}: no lab has it; expected one of {', '.join(known)}", code=WRONG_CALL)
    found = [
        row
        for row in rows
        if (number is None or row["phase"] == number)
        and (gpu is None or _has_gpu(row, gpu))
        and (status is None or row["status"] == status)
        and (kind is None or kind in row["kinds"])
        and (week is None or row["week"] == week)
    ]
    if as_json:
        print_json(found)
        return
    columns = ["lab", "title", "phase", "week", "dates", "GPU", "sessions", "kinds", "status", "targets"]
    lines = [
        [
            row["id"],
            row["title"],
            str(row["phase"]),
            str(row["week"]),
            dates(row["starts"], row["ends"]),
            row["gpu"],
            str(row["sessions"]),
            " ".join(row["kinds"]),
            row["status"],
            " ".join(row["targets"]),
        ]
        for row in found
    ]
    print_table(columns, lines, right=[2, 3, 6], whole=[0, 4, 8])
    complete = sum(row["status"] == "complete" for row in found)
    say(f"\n{len(found)} of {len(rows)} labs, {complete} of them complete")


def _row(lab: LabSpec | Outline, calendar_: Calendar, sheet: PriceSheet) -> dict[str, Any]:
    week = calendar_.week(lab.week)
    return {
        "id": lab.id,
        "title": lab.title,
        "phase": lab.phase,
        "week": lab.week,
        "starts": week.starts,
        "ends": week.ends,
        "gpu": gpu_labels(lab.nodes, sheet),
        "nodes": [{**node.model_dump(), "gpu": gpu_name(node, sheet)} for node in lab.nodes],
        "sessions": lab.sessions,
        "kinds": lab.kinds,
        "status": status_of(lab),
        "targets": list(getattr(lab, "targets", [])),
    }


def _gpus_of(row: dict[str, Any]) -> list[str]:
    return sorted({node["gpu"] for node in row["nodes"] if node["gpu"]}) or [NO_GPU]


def _has_gpu(row: dict[str, Any], asked: str) -> bool:
    """Whether the lab uses the GPU: `A100` is also A100-80G."""
    return any(name.lower() == asked.lower() or name.lower().startswith(f"{asked.lower()}-") for name in _gpus_of(row))


def _phase_number(calendar_: Calendar, asked: str) -> int:
    found = [
        phase.number
        for phase in calendar_.phases
        if asked == str(phase.number) or phase.name.lower().startswith(asked.lower())
    ]
    if len(found) != 1:
        known = ", ".join(f"{phase.number} {phase.name}" for phase in calendar_.phases)
        fail(f"--phase {asked}: expected one of {known}", code=WRONG_CALL)
    return found[0]


# labs calendar


def calendar(as_json: JsonOption = False) -> None:
    """The year's weeks with their labs, tags and posts; this week is marked."""
    from lab_pipelines.catalog.calendar import load_calendar
    from lab_pipelines.catalog.loader import SpecError, load_catalog

    with explained(SpecError):
        calendar_, labs = load_calendar(), load_catalog().labs()
    today = datetime.now().astimezone().date()
    weeks = [
        {
            "number": week.number,
            "starts": week.starts,
            "ends": week.ends,
            "phase": next(p.number for p in calendar_.phases if p.first_week <= week.number <= p.last_week),
            "theme": week.theme,
            "labs": [lab.id for lab in labs if lab.week == week.number],
            "posts": [post.number for post in calendar_.posts if post.week == week.number],
            "tag": week.consolidation.tag if week.consolidation else None,
            "tasks": week.consolidation.tasks if week.consolidation else [],
            "current": week.starts <= today <= week.ends,
        }
        for week in calendar_.weeks
    ]
    if as_json:
        whole = calendar_.model_dump(mode="json")
        print_json({**whole, "today": today, "weeks": weeks})
        return
    columns = ["", "week", "dates", "phase", "theme", "labs", "tag", "posts"]
    lines = [
        [
            "▶" if week["current"] else "",
            str(week["number"]),
            dates(week["starts"], week["ends"]),
            str(week["phase"]),
            week["theme"],
            " ".join(week["labs"]),
            week["tag"] or "",
            ", ".join(map(str, week["posts"])),
        ]
        for week in weeks
    ]
    styles = ["bold" if week["current"] else "" for week in weeks]
    print_table(columns, lines, right=[1, 3], whole=[2], styles=styles)
    print_list(
        "phases", [f"{p.number} {p.name}, weeks {p.first_week} to {p.last_week}: {p.motto}" for p in calendar_.phases]
    )
    print_list("posts", [f"{post.number} ({post.publish}): {post.title}" for post in calendar_.posts])
    print_list("errata", [erratum_line(one) for one in calendar_.errata])
