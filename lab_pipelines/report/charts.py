"""Rows → pictures: a load step's, a cold start's, a run's cost; and the lines, bars and stacks that others draw with.

Unknown values stay unknown: a line breaks there, it never touches zero; a quantile of too few requests is hollow.

Doesn't belong here: which rows are shown (read.py), the pictures that a lab's spec asks for (figures.py), axes and
legends (axes.py), the frame and its title (svg.py), the page around the picture (page.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt

from lab_pipelines.report.axes import (
    LOG_FROM,
    SERIES,
    bars_height,
    category_axis,
    doubling_axis,
    legend,
    linear_ticks,
    looks,
    number_axis,
    value_axis,
)
from lab_pipelines.report.svg import Picture, framed, picture, provenance_of
from lab_pipelines.report.wording import GAP, Row, duration, in_order, provenance_line, short

PARTS = {"serve": "serving", "failed": "failed requests", "idle": "idle", "cold_start": "cold start"}
PART_COLOURS = ["var(--series-1)", "var(--series-3)", "var(--muted)", "var(--series-2)"]


_AXES = {
    "ramp": ("users", "concurrent users"),
    "constant": ("users", "concurrent users"),
    "burst": ("users", "requests at once"),
    "rate": ("offered_per_s", "offered requests per second"),
    "rate_profile": ("offered_per_s", "offered requests per second, mean"),
    "trace": ("offered_per_s", "offered requests per second, mean"),
}
"""By profile: the column of the view `stage_table` that says what was applied, and its name on an axis."""


@dataclass(frozen=True)
class Mark:
    """One value of a picture: a point of a line or a scatter, or a bar."""

    x: float | str
    """A number, or the name of a group of bars."""
    y: float | None
    """None: not known."""
    series: str
    supported: bool = True
    """Whether the sample carries an interval."""
    order: float = 0.0
    """Of the points of one line."""
    note: str = ""
    """Stands where a bar would, if its value is not known."""


@dataclass(frozen=True)
class Line:
    """One line of a chart against the load."""

    name: str
    key: str
    """Column of the view `stage_table`."""
    supported: str | None = None
    """The view's boolean for points whose sample carries an interval; others are drawn hollow."""


def load_title(row: Row) -> str:
    """What a stage's load is, on an axis."""
    return _AXES[row["profile"]][1]


def throughput(rows: Sequence[Row]) -> Picture:
    return _against_load("Output throughput", rows, [Line("output", "output_tokens_per_s")], "tokens/s")


def ttft(rows: Sequence[Row]) -> Picture:
    lines = [
        Line("p50", "ttft_p50_s"),
        Line("p95", "ttft_p95_s", "ttft_p95_supported"),
        Line("p99", "ttft_p99_s", "ttft_p99_supported"),
    ]
    return _against_load("Time to first token", rows, lines, "s")


def itl(rows: Sequence[Row]) -> Picture:
    lines = [Line("p50", "itl_p50_s"), Line("p95", "itl_p95_s")]
    return _against_load("Inter-token latency", rows, lines, "ms", factor=1000)


def served(rows: Sequence[Row]) -> Picture:
    return _against_load("Requests served", rows, [Line("served", "requests_per_s")], "requests/s")


def latency(rows: Sequence[Row]) -> Picture:
    lines = [
        Line("p50", "e2e_p50_s"),
        Line("p95", "e2e_p95_s", "e2e_p95_supported"),
        Line("p99", "e2e_p99_s", "e2e_p99_supported"),
    ]
    return _against_load("Latency of a whole answer", rows, lines, "ms", factor=1000)


def usd_per_1k_tokens(rows: Sequence[Row]) -> Picture:
    return _against_load("Price of 1K tokens in and out", rows, [Line("USD", "usd_per_1k_tokens")], "USD")


def of_ladder(rows: Sequence[Row]) -> list[Picture]:
    """The pictures of one load step, against what was applied; of a single load, bars."""
    key, _ = _AXES[rows[0]["profile"]]
    compared = len({row[key] for row in rows}) > 1 or len({row["variant"] for row in rows}) > 1
    if rows[0]["request_kind"] == "http":
        return [*([served(rows)] if compared else []), latency(rows)]
    if not compared:  # one bar says less than the table
        return [ttft(rows), itl(rows)]
    return [throughput(rows), ttft(rows), itl(rows), usd_per_1k_tokens(rows)]


@picture
def cold_start(rows: Sequence[Row], shown_for: Row) -> Picture:
    """The view `cold_start_timeline` as a waterfall, or as a bar for each of several variants. `shown_for`: any row of
    the run."""
    if not rows:
        return Picture("Cold start", provenance_line(shown_for), None)
    if len({row["session_id"] for row in rows}) > 1:
        parts = [(row["variant"], row["phase"].replace("_", " "), row["duration_s"]) for row in rows]
        totals = {row["variant"]: duration(row["cold_start_s"]) for row in rows}
        colours = dict(zip(in_order(part for _, part, _ in parts), SERIES, strict=False))
        return stacked_picture("Cold start, to the first token", parts, totals, "stack seconds", shown_for, colours)
    total = rows[-1]["cold_start_s"]
    values: list[Any] = [
        {
            "phase": row["phase"].replace("_", " "),
            "from": row["starts_at_s"],
            "to": row["starts_at_s"] + row["duration_s"],
            "label": duration(row["duration_s"]),
        }
        for row in rows
    ]
    order = [value["phase"] for value in values]
    base = alt.Chart(alt.Data(values=values)).encode(y=alt.Y("phase:N", sort=order, title=None, axis=category_axis()))
    # Room on the right for the last bar's own label.
    scale = alt.Scale(domain=[0, total * 1.28], nice=False)
    axis = alt.Axis(values=linear_ticks(total), grid=True, format=".6~r")
    bars = base.mark_bar(color="var(--series-2)", height=13).encode(
        x=alt.X("from:Q", title="stack seconds after the request", scale=scale, axis=axis), x2="to:Q"
    )
    labels = base.mark_text(align="left", dx=4, color="currentColor", fontSize=11).encode(x="to:Q", text="label:N")
    return framed(f"Cold start: {duration(total)} to the first token", [shown_for], bars + labels)


@picture
def cost_split(rows: Sequence[Row], shown_for: Row) -> Picture:
    """What the node time went into, by the view `session_cost`, variant by variant; hours where there is no price."""
    if not rows:
        return Picture("Cost of the session", provenance_line(shown_for), None)
    priced = all(row["usd"] is not None for row in rows)
    amounts = [float(row["usd"] if priced else row["node_hours"]) for row in rows]
    total, unit = sum(amounts), "USD" if priced else "node-hours"
    if len({row["session_id"] for row in rows}) > 1:
        parts = [(row["variant"], PARTS[row["part"]], amount) for row, amount in zip(rows, amounts, strict=True)]
        sums: dict[str, float] = defaultdict(float)
        for variant, _, amount in parts:
            sums[variant] += amount
        title = f"Cost of the run: {short(total)} USD" if priced else f"Node time: {short(total)} h, no price known"
        totals = {variant: short(amount) for variant, amount in sums.items()}
        colours = dict(zip(PARTS.values(), PART_COLOURS, strict=True))
        return stacked_picture(title, parts, totals, f"{unit}, {rows[0]['state']}", shown_for, colours)
    values = [
        {
            "part": PARTS[row["part"]],
            "amount": amount,
            "label": f"{short(amount)} · {amount / total * 100:.0f} %" if total else short(amount),
        }
        for row, amount in zip(rows, amounts, strict=True)
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("part:N", sort=list(PARTS.values()), title=None, axis=category_axis())
    )
    largest = max(amounts) or 1.0
    scale = alt.Scale(domain=[0, largest * 1.5], nice=False)
    axis = alt.Axis(values=linear_ticks(largest), grid=True, format=".6~r")
    bars = base.mark_bar(height=18).encode(
        x=alt.X("amount:Q", stack=None, title=f"{unit}, {rows[0]['state']}", scale=scale, axis=axis),
        color=alt.Color("part:N", legend=None, scale=alt.Scale(domain=list(PARTS.values()), range=PART_COLOURS)),
    )
    labels = base.mark_text(align="left", dx=4, color="currentColor", fontSize=11).encode(x="amount:Q", text="label:N")
    title = f"Cost of the session: {short(total)} USD" if priced else f"Node time: {short(total)} h, no price known"
    return framed(title, [shown_for], bars + labels)


@picture
def stacked_picture(
    title: str,
    parts: Sequence[tuple[str, str, float]],
    totals: Mapping[str, str],
    axis: str,
    row: Row,
    colours: Mapping[str, str],
    *,
    subtitle: Sequence[str] | None = None,
) -> Picture:
    """One bar for each variant or lab, made of (its name, part, amount), with its total behind it.

    `colours` are the parts'.
    """
    present = {part for _, part, _ in parts}
    names = [part for part in colours if part in present]
    sums = {name: sum(amount for variant, _, amount in parts if variant == name) for name in totals}
    values: list[Any] = [{"variant": v, "part": part, "amount": amount} for v, part, amount in parts]
    ends: list[Any] = [{"variant": v, "amount": amount, "label": totals[v]} for v, amount in sums.items()]
    largest = max(sums.values()) or 1.0
    height = bars_height(len(totals))
    thickness = min(15.0, 0.75 * (height - 120) / max(len(totals), 1))  # so that many don't run into one another
    y = alt.Y("variant:N", sort=list(totals), title=None, axis=category_axis())
    scale = alt.Scale(domain=[0, largest * 1.28], nice=False)
    x = alt.X("amount:Q", title=axis, scale=scale, axis=alt.Axis(values=linear_ticks(largest), format=".6~r"))
    bars = (
        alt.Chart(alt.Data(values=[{**value, "at": names.index(value["part"])} for value in values]))
        .mark_bar(height=thickness)
        .encode(
            y=y,
            x=x.stack("zero"),
            order="at:Q",
            color=alt.Color(
                "part:N", scale=alt.Scale(domain=names, range=[colours[part] for part in names]), legend=legend(names)
            ),
        )
    )
    labels = (
        alt.Chart(alt.Data(values=ends))
        .mark_text(align="left", dx=4, color="currentColor", fontSize=11)
        .encode(y=y, x=x, text="label:N")
    )
    return framed(title, row, bars + labels, height=height, subtitle=subtitle)


def _against_load(title: str, rows: Sequence[Row], lines: Sequence[Line], unit: str, factor: float = 1.0) -> Picture:
    """Lines against the load: a variant's quantiles, or several variants' first of `lines`. One load makes bars."""
    key, axis = _AXES[rows[0]["profile"]]
    variants = in_order(row["variant"] for row in rows)
    several, one_load = len(variants) > 1, len({row[key] for row in rows}) == 1
    shown = lines[:1] if several else lines
    name = f"{title} ({shown[0].name}), {unit}" if several and len(lines) > 1 else f"{title}, {unit}"
    marks = [
        Mark(
            x=(row["variant"] if several else line.name) if one_load else row[key],
            y=None if row[line.key] is None else row[line.key] * factor,
            series=row["variant"] if several else line.name,
            supported=line.supported is None or bool(row[line.supported]),
            order=row["stage"],
        )
        for line in shown
        for row in rows
    ]
    if not one_load:
        return lines_picture(name, marks, rows, x_title=axis, load_axis=True)
    return bars_picture(f"{name}, at {rows[0]['load']}", [replace(mark, series="") for mark in marks], rows)


@picture
def lines_picture(
    title: str,
    marks: Sequence[Mark],
    shown_for: Row | Sequence[Row],
    *,
    x_title: str,
    load_axis: bool = False,
    joined: bool = True,
    log_y: bool | None = None,
    subtitle: Sequence[str] | None = None,
) -> Picture:
    """Series of points, `joined` by lines or not. `shown_for` are the stages behind them.

    On a `load_axis` x doubles at equal distances. `log_y` None: where the values span more than `LOG_FROM`; a value
    of zero keeps the axis linear, whatever was asked for.
    """
    known = [mark.y for mark in marks if mark.y is not None]
    if not known:
        return Picture(title, provenance_of(shown_for), None)
    spread = min(known) > 0 and max(known) / min(known) >= LOG_FROM
    logarithmic = min(known) > 0 and (spread if log_y is None else log_y)
    names = in_order(mark.series for mark in marks)
    values: list[Any] = [
        {"x": mark.x, "order": mark.order, "series": mark.series, "value": mark.y, "supported": mark.supported}
        for mark in marks
    ]
    shown = legend(names)
    colours, shapes = looks(len(names))
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=shown)
    xs = sorted({float(mark.x) for mark in marks})
    base = alt.Chart(alt.Data(values=values)).encode(
        x=doubling_axis(xs, x_title) if load_axis else number_axis(xs, x_title),
        y=value_axis(known, logarithmic=logarithmic),
        color=colour,
    )
    points = base.mark_point(size=42, strokeWidth=1.6, opacity=1).encode(
        shape=alt.Shape("series:N", scale=alt.Scale(domain=names, range=shapes), legend=shown),
        fill=alt.condition("datum.supported", colour, alt.value("var(--page)")),
    )
    path = base.mark_line(strokeWidth=1.8, invalid="break-paths-filter-domains").encode(order="order:Q")
    whole = path + points if joined else points
    return framed(f"{title}{' (log scale)' * logarithmic}", shown_for, whole, subtitle=subtitle)


@picture
def dates_picture(title: str, points: Sequence[Mapping[str, Any]], row: Row, *, subtitle: Sequence[str]) -> Picture:
    """Lines over days. Each point has `day` (ISO 8601), `series` and `value`; None breaks the line."""
    names = in_order(point["series"] for point in points)
    known = [point["value"] for point in points if point["value"] is not None]
    colours, shapes = looks(len(names))
    shown = legend(names)
    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X(
            "day:T",
            title=None,
            scale=alt.Scale(type="utc"),
            axis=alt.Axis(format="%b %-d", grid=False, tickCount=5, labelOverlap="greedy", labelSeparation=14),
        ),
        y=value_axis(known, logarithmic=False),
        color=alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=shown),
    )
    path = base.mark_line(strokeWidth=1.8, invalid="break-paths-filter-domains", interpolate="step-after")
    marks = base.mark_point(size=24, strokeWidth=1.6, opacity=1).encode(
        shape=alt.Shape("series:N", scale=alt.Scale(domain=names, range=shapes), legend=shown)
    )
    return framed(title, row, path + marks, subtitle=subtitle)


@picture
def bars_picture(title: str, marks: Sequence[Mark], rows: Sequence[Row]) -> Picture:
    """Horizontal bars from zero, in the groups that `x` names, one for each series. `rows` are the stages behind."""
    known = [mark.y for mark in marks if mark.y is not None]
    if not known:
        return Picture(title, provenance_line(rows[0]), None)
    groups, names = in_order(str(mark.x) for mark in marks), in_order(mark.series for mark in marks if not mark.note)
    values: list[Any] = [
        {
            "group": str(mark.x),
            "series": mark.series or names[0],
            "value": mark.y,
            "end": mark.y or 0.0,
            "supported": mark.supported,
            "label": mark.note or GAP if mark.y is None else short(mark.y),
        }
        for mark in marks
    ]
    largest = max(known) or 1.0
    scale = alt.Scale(domain=[0, largest * 1.28], nice=False)
    axis = alt.Axis(values=linear_ticks(largest), grid=True, format=".6~r")
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("group:N", sort=groups, title=None, axis=category_axis(), scale=alt.Scale(paddingInner=0.25)),
        yOffset=alt.YOffset("series:N", sort=names),
    )
    colours, _ = looks(len(names))
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=colours), legend=legend(names))
    bars = base.transform_filter("datum.value != null").mark_bar(strokeWidth=1.6)
    bars = bars.encode(
        x=alt.X("end:Q", title=None, scale=scale, axis=axis),
        color=colour,
        stroke=alt.Stroke("series:N", scale=alt.Scale(domain=names, range=colours), legend=None),
        fill=alt.condition("datum.supported", colour, alt.value("var(--page)")),
    )
    labels = base.mark_text(align="left", dx=4, color="currentColor", fontSize=11).encode(x="end:Q", text="label:N")
    return framed(title, rows, bars + labels, height=bars_height(len(groups) * max(len(names), 1)))
