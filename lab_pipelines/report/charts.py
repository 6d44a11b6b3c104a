"""Rows → SVG. Every picture says in its own title where its numbers come from, since pictures travel alone.

Colours are CSS variables of the page (`--series-1` … and `--muted`), text is `currentColor`, so that one SVG serves
light, dark and print. Unknown values stay unknown: a line breaks there, it never touches zero. No network, no script.

Rows come from read.py, which takes out control characters: the renderer's XML writer aborts the process on one.

Doesn't belong here: which rows are shown (read.py), the page around the picture (page.py).
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from lab_pipelines.report.wording import Row, duration, origin, place, provenance_line, short

WIDTH, HEIGHT = 380, 264
"""CSS pixels: the width of a phone, so that text keeps its size there."""
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""Metric-compatible on every system, so that what the renderer measured is what the reader sees."""
LOG_FROM = 20.0
"""A y axis turns logarithmic when its largest value is this many times its smallest."""

_SERIES = ["var(--series-1)", "var(--series-2)", "var(--series-3)"]
_SHAPES = ["circle", "square", "triangle-up"]
PARTS = {"serve": "serving", "failed": "failed requests", "idle": "idle", "cold_start": "cold start"}
_PART_COLOURS = ["var(--series-1)", "var(--series-3)", "var(--muted)", "var(--series-2)"]


_AXES = {
    "ramp": ("users", "concurrent users"),
    "constant": ("users", "concurrent users"),
    "burst": ("users", "requests at once"),
    "rate": ("offered_per_s", "offered requests per second"),
}
"""By profile: the column of the view `stage_table` that says what was applied, and its name on an axis."""


@dataclass(frozen=True)
class Picture:
    title: str
    provenance: str
    svg: str | None
    """None: there is nothing to draw."""


@dataclass(frozen=True)
class Line:
    """One line of a chart against the load."""

    name: str
    key: str
    """Column of the view `stage_table`."""
    supported: str | None = None
    """The view's boolean for points whose sample carries an interval; others are drawn hollow."""


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
    """The pictures of one load step, against what was applied."""
    if rows[0]["request_kind"] == "http":
        return [served(rows), latency(rows)]
    return [throughput(rows), ttft(rows), itl(rows), usd_per_1k_tokens(rows)]


def cold_start(rows: Sequence[Row], shown_for: Row) -> Picture:
    """Waterfall of the view `cold_start_timeline`. `shown_for`: any row of the session."""
    if not rows:
        return Picture("Cold start", provenance_line(shown_for), None)
    total = rows[-1]["cold_start_s"]
    values = [
        {
            "phase": row["phase"].replace("_", " "),
            "from": row["starts_at_s"],
            "to": row["starts_at_s"] + row["duration_s"],
            "label": duration(row["duration_s"]),
        }
        for row in rows
    ]
    order = [value["phase"] for value in values]
    base = alt.Chart(alt.Data(values=values)).encode(y=alt.Y("phase:N", sort=order, title=None, axis=_category_axis()))
    # Room on the right for the last bar's own label.
    scale = alt.Scale(domain=[0, total * 1.28], nice=False)
    axis = alt.Axis(values=_linear_ticks(total), grid=True, format=".6~r")
    bars = base.mark_bar(color="var(--series-2)", height=13).encode(
        x=alt.X("from:Q", title="stack seconds after the request", scale=scale, axis=axis), x2="to:Q"
    )
    labels = base.mark_text(align="left", dx=4, color="currentColor", fontSize=11).encode(x="to:Q", text="label:N")
    return _picture(f"Cold start: {duration(total)} to the first token", shown_for, bars + labels)


def cost_split(rows: Sequence[Row], shown_for: Row) -> Picture:
    """What the node time of one session went into, by the view `session_cost`; hours where there is no price."""
    if not rows:
        return Picture("Cost of the session", provenance_line(shown_for), None)
    priced = all(row["usd"] is not None for row in rows)
    amounts = [float(row["usd"] if priced else row["node_hours"]) for row in rows]
    total, unit = sum(amounts), "USD" if priced else "node-hours"
    values = [
        {
            "part": PARTS[row["part"]],
            "amount": amount,
            "label": f"{short(amount)} · {amount / total:.0%}" if total else short(amount),
        }
        for row, amount in zip(rows, amounts, strict=True)
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("part:N", sort=list(PARTS.values()), title=None, axis=_category_axis())
    )
    largest = max(amounts) or 1.0
    scale = alt.Scale(domain=[0, largest * 1.5], nice=False)
    axis = alt.Axis(values=_linear_ticks(largest), grid=True, format=".6~r")
    bars = base.mark_bar(height=18).encode(
        x=alt.X("amount:Q", stack=None, title=f"{unit}, {rows[0]['state']}", scale=scale, axis=axis),
        color=alt.Color("part:N", legend=None, scale=alt.Scale(domain=list(PARTS.values()), range=_PART_COLOURS)),
    )
    labels = base.mark_text(align="left", dx=4, color="currentColor", fontSize=11).encode(x="amount:Q", text="label:N")
    title = f"Cost of the session: {short(total)} USD" if priced else f"Node time: {short(total)} h, no price known"
    return _picture(title, shown_for, bars + labels)


def _against_load(title: str, rows: Sequence[Row], lines: Sequence[Line], unit: str, factor: float = 1.0) -> Picture:
    key, axis = _AXES[rows[0]["profile"]]
    values = [
        {
            "load": row[key],
            "stage": row["stage"],
            "series": line.name,
            "value": None if row[line.key] is None else row[line.key] * factor,
            "supported": line.supported is None or bool(row[line.supported]),
        }
        for line in lines
        for row in rows
    ]
    known = [value["value"] for value in values if value["value"] is not None]
    if not known:
        return Picture(title, provenance_line(rows[0]), None)
    logarithmic = min(known) > 0 and max(known) / min(known) >= LOG_FROM
    names = [line.name for line in lines]
    legend = alt.Legend(title=None, orient="top", direction="horizontal", offset=2) if len(lines) > 1 else None
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=_SERIES[: len(names)]), legend=legend)
    loads = sorted({row[key] for row in rows})
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(
            "load:Q",
            title=axis,
            # Padding keeps the outer points off the frame, and gives a lone stage a domain of its own.
            scale=alt.Scale(type="log", base=2, domain=[loads[0] / 1.15, loads[-1] * 1.15], nice=False),
            axis=alt.Axis(values=loads, format=".6~r", grid=False, labelOverlap="greedy"),
        ),
        y=_value_axis(known, logarithmic=logarithmic),
        color=colour,
    )
    path = base.mark_line(strokeWidth=1.8, invalid="break-paths-filter-domains").encode(order="stage:Q")
    points = base.mark_point(size=42, strokeWidth=1.6, opacity=1).encode(
        shape=alt.Shape("series:N", scale=alt.Scale(domain=names, range=_SHAPES[: len(names)]), legend=legend),
        fill=alt.condition("datum.supported", colour, alt.value("var(--page)")),
    )
    return _picture(f"{title}, {unit}{' (log scale)' * logarithmic}", rows[0], path + points)


def _value_axis(known: Sequence[float], *, logarithmic: bool) -> alt.Y:
    if logarithmic:
        ticks = _log_ticks(min(known), max(known))
        scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
    else:
        ticks = _linear_ticks(max(known) or 1.0)
        scale = alt.Scale(domain=[0, max(ticks[-1], max(known) * 1.04)], nice=False)
    return alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(values=ticks, format=".6~r"))


def _linear_ticks(largest: float) -> list[float]:
    """Round numbers from zero up to, or just below, `largest`: four to seven of them."""
    raw = largest / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.8)
    return [round(step * i, 12) for i in range(math.floor(largest / step + 1e-9) + 1)]


def _log_ticks(smallest: float, largest: float) -> list[float]:
    """1-2-5 steps that enclose both, or powers of ten when there would be more than eight."""
    powers = range(math.floor(math.log10(smallest)), math.ceil(math.log10(largest)) + 1)
    for factors in ((1, 2, 5), (1,)):
        steps = [float(f"{factor}e{power}") for power in powers for factor in factors]
        low = max(step for step in steps if step <= smallest * (1 + 1e-9))
        high = min(step for step in steps if step >= largest * (1 - 1e-9))
        ticks = [step for step in steps if low <= step <= high]
        if len(ticks) <= 8:
            break
    return ticks


def _category_axis() -> alt.Axis:
    return alt.Axis(ticks=False, domain=False, labelPadding=6, labelFontSize=11, labelLimit=150)


def _picture(title: str, row: Row, chart: Any) -> Picture:
    provenance = provenance_line(row)
    spec = (
        chart.properties(
            width=WIDTH,
            height=HEIGHT,
            background="transparent",
            padding=4,
            autosize=alt.AutoSizeParams(type="fit", contains="padding"),
            title=alt.Title(title, subtitle=[f"{row['lab']} {row['variant']} · {origin(row)}", place(row)]),
        )
        .configure(font=FONT, aria=False)
        .configure_title(
            anchor="start",
            frame="bounds",
            fontSize=13,
            fontWeight=600,
            color="currentColor",
            subtitleFontSize=10,
            subtitleColor="currentColor",
            subtitlePadding=4,
            offset=10,
            limit=WIDTH,
        )
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            labelFontSize=10.5,
            titleFontSize=10.5,
            titleFontWeight="normal",
            gridColor="var(--rule)",
            domainColor="var(--muted)",
            tickColor="var(--muted)",
        )
        .configure_axisY(domain=False, ticks=False)
        .configure_axisX(labelFlush=False)
        .configure_legend(
            labelColor="currentColor", labelFontSize=11, symbolStrokeWidth=1.6, symbolFillColor="transparent"
        )
        .configure_view(stroke=None)
        .to_dict()
    )
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    return Picture(title, provenance, _inline(svg, f"{title}. {row['lab']}, {provenance}"))


def _inline(svg: str, label: str) -> str:
    """The SVG with a root that scales with the page and is read out as one picture."""
    box = re.search(r'viewBox="([0-9. -]+)"', svg)
    if box is None:
        raise ValueError("the renderer returned an SVG without a viewBox")
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    root = f'role="img" aria-label="{html.escape(label)}" viewBox="{box[1]}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {root}>{body}'
