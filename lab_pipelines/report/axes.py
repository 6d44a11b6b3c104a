"""Axes, ticks, legends, and the looks of series: what every chart shares.

Doesn't belong here: the charts themselves (charts.py), the frame around one (svg.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from lab_pipelines.report.svg import HEIGHT

LOG_FROM = 20.0
"""A y axis turns logarithmic when its largest value is this many times its smallest."""

SERIES = [f"var(--series-{number})" for number in range(1, 9)]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
"""Seven beside eight colours: even the ninth series has a look of its own."""


def looks(series: int) -> tuple[list[str], list[str]]:
    """Colours and shapes for so many series."""
    return [SERIES[n % len(SERIES)] for n in range(series)], [_SHAPES[n % len(_SHAPES)] for n in range(series)]


def doubling_axis(loads: Sequence[float], title: str) -> alt.X:
    return alt.X(
        "x:Q",
        title=title,
        # Padding keeps the outer points off the frame.
        scale=alt.Scale(type="log", base=2, domain=[loads[0] / 1.15, loads[-1] * 1.15], nice=False),
        axis=alt.Axis(values=list(loads), format=".6~r", grid=False, labelOverlap="greedy"),
    )


def number_axis(values: Sequence[float], title: str) -> alt.X:
    room = (values[-1] - values[0]) * 0.08 or abs(values[0]) * 0.2 or 1.0
    scale = alt.Scale(domain=[values[0] - room, values[-1] + room], nice=False, zero=False)
    return alt.X("x:Q", title=title, scale=scale, axis=alt.Axis(format=".6~r", grid=False, tickCount=5))


def legend(names: Sequence[str]) -> alt.Legend | None:
    if len(names) < 2:
        return None
    columns = 4 if max(len(name) for name in names) < 9 else 3 if max(len(name) for name in names) < 15 else 2
    return alt.Legend(
        title=None, orient="top", direction="horizontal", offset=2, columns=columns, symbolLimit=0, labelLimit=170
    )


def bars_height(bars: int) -> int:
    """CSS pixels for so many bars, with title and legend."""
    return min(max(HEIGHT, 120 + 20 * bars), 4 * HEIGHT)


def value_axis(known: Sequence[float], *, logarithmic: bool) -> alt.Y:
    if logarithmic:
        ticks = _log_ticks(min(known), max(known))
        scale = alt.Scale(type="log", domain=[ticks[0], ticks[-1]], nice=False)
    else:
        ticks = linear_ticks(max(known) or 1.0)
        scale = alt.Scale(domain=[0, max(ticks[-1], max(known) * 1.04)], nice=False)
    return alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(values=ticks, format=".6~r"))


def linear_ticks(largest: float) -> list[float]:
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


def category_axis() -> alt.Axis:
    return alt.Axis(ticks=False, domain=False, labelPadding=6, labelFontSize=11, labelLimit=150)
