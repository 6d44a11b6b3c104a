"""What a target's labs cost, as pictures: where the money went, what a token costs on which machine, estimate and bill.

Belongs here: how money reads and looks across labs. Doesn't belong here: which numbers are shown (sql/money_*.sql), the
cost of one run (charts.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab_pipelines.report.charts import (
    PART_COLOURS,
    PARTS,
    Mark,
    dates_picture,
    lines_picture,
    stacked_picture,
)
from lab_pipelines.report.svg import Picture
from lab_pipelines.report.wording import PROVENANCES, Row, in_order, percent, short


@dataclass(frozen=True)
class Money:
    """What one target's runs of one provenance cost. No picture ever adds a modelled dollar to a measured one."""

    provenance: str
    sentence: str
    pictures: list[Picture]


def money_of(
    by_lab: Sequence[Row], by_load: Sequence[Row], by_day: Sequence[Row], phases: Mapping[str, str] | None = None
) -> list[Money]:
    """The money of one target, measured first. The rows are those of the questions of these names, of that target.

    `phases`: each lab's phase, where the picture is to add up those of a phase.
    """
    found = []
    for provenance in PROVENANCES:
        labs, loads, days = (
            [row for row in rows if row["provenance"] == provenance] for rows in (by_lab, by_load, by_day)
        )
        if labs:
            # One lab's own pictures stand in its section.
            several = len({row["lab"] for row in labs}) > 1
            pictures = [where_it_went(labs, phases), *([against_load(loads)] if loads else [])] if several else []
            found.append(Money(provenance, said(labs, days), [*pictures, *over_time(days)]))
    return found


def said(labs: Sequence[Row], days: Sequence[Row]) -> str:
    """The sum, what share of it served, and how the bill compares, in one paragraph."""
    known = [row for row in labs if row["usd"] is not None]
    # A session without a price lacks it in each of its parts.
    unpriced = sum(
        max(row["unpriced_sessions"] for row in labs if row["lab"] == lab) for lab in in_order(r["lab"] for r in labs)
    )
    total = float(sum(row["usd"] for row in known))
    sentences = list[str]()
    if known:
        served = float(sum(row["usd"] for row in known if row["part"] == "serve"))
        share = f", of which {percent(served / total)} served requests" if total else ""
        count = len({row["lab"] for row in known})
        sentences.append(f"{short(total)} USD for {count} lab{'' if count == 1 else 's'}{share}.")
    if unpriced:
        has = "session has no price and is" if unpriced == 1 else "sessions have no price and are"
        sentences.append(f"{unpriced} {has} not in it.")
    last = days[-1] if days else None
    if last is not None and last["billed_usd"] is not None:
        billed, estimated = float(last["billed_usd"]), float(last["estimated_of_billed_usd"] or 0)
        off = f", {percent(billed / estimated - 1, signed=True)} of the estimate" if estimated else ""
        sentences.append(f"Azure has billed {short(billed)} USD of it so far{off} for the same sessions.")
    return " ".join(sentences)


def where_it_went(labs: Sequence[Row], phases: Mapping[str, str] | None = None) -> Picture:
    """A bar for each lab, or for each of several phases, made of serving, failed requests, idle time and cold start."""
    names: dict[str, str] = {row["lab"]: (phases or {}).get(row["lab"]) or row["lab"] for row in labs}
    if len(set(names.values())) < 2:
        names = {lab: lab for lab in names}
    known = [row for row in labs if row["usd"] is not None]
    first, title = _shown_for(labs), "Where the money went, USD"
    if not known:
        return Picture(title, first["provenance"], None)
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for row in known:
        sums[names[row["lab"]], PARTS[row["part"]]] += float(row["usd"])
    totals: dict[str, float] = defaultdict(float)
    for (name, _), usd in sums.items():
        totals[name] += usd
    return stacked_picture(
        title,
        [(name, part, usd) for (name, part), usd in sums.items()],
        {name: short(totals[name]) for name in sorted(totals)},
        "USD, the bill where it has come, else the estimate",
        first,
        dict(zip(PARTS.values(), PART_COLOURS, strict=True)),
        subtitle=["all runs of all labs, in stack time"],
    )


def against_load(loads: Sequence[Row]) -> Picture:
    """USD per 1K tokens against concurrency, a line for each machine type: the cheapest configuration there is."""
    marks = [
        Mark(
            x=row["users"],
            y=row["usd_per_1k_tokens"],
            series=(row["sku"] or "unknown").removeprefix("Standard_"),
            order=row["users"],
        )
        for row in loads
    ]
    tried = max(row["configurations"] for row in loads)
    return lines_picture(
        "Cheapest 1K tokens, USD",
        marks,
        _shown_for(loads),
        x_title="concurrent users",
        load_axis=True,
        subtitle=[f"in and out, of up to {tried} configurations at a load; newest runs"],
    )


def over_time(days: Sequence[Row]) -> list[Picture]:
    """What was estimated and what was billed, summed since the first day; nothing where there is but one day."""
    if len(days) < 2:
        return []
    lines = {
        "estimate, all sessions": "estimated_usd",
        "estimate, billed sessions": "estimated_of_billed_usd",
        "bill": "billed_usd",
    }
    shown = {name: key for name, key in lines.items() if any(row[key] is not None for row in days)}
    points: list[dict[str, Any]] = [
        {"day": row["day"].isoformat(), "series": name, "value": None if row[key] is None else float(row[key])}
        for name, key in shown.items()
        for row in days
    ]
    title = "Estimate against bill, USD so far" if "bill" in shown else "Estimate, USD so far"
    subtitle = ["by the day on which a session began", *([] if "bill" in shown else ["no bill has come"])]
    return [dates_picture(title, points, _shown_for(days), subtitle=subtitle)]


def _shown_for(rows: Sequence[Row]) -> Row:
    return {"target": rows[0]["target"], "provenance": rows[0]["provenance"], "lab": "all labs"}
