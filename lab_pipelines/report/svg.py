"""A Vega-Lite chart → one inline SVG under a title that says where its numbers come from: pictures travel alone.

Colours are CSS variables of the page (`--series-1` … and `--muted`), text is `currentColor`, so that one SVG serves
light, dark and print. No network, no script.

Rows come from read.py, which takes out control characters: the renderer's XML writer aborts the process on one.

Doesn't belong here: what is drawn (charts.py, figures.py, money.py, forecast.py), axes and legends (axes.py).
"""

from __future__ import annotations

import html
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import vl_convert
from altair.utils.schemapi import debug_mode

from lab_pipelines.report.drawn import drawn
from lab_pipelines.report.wording import Row, clock, engine, in_order, outside_range, provenance_line

P = ParamSpec("P")
T = TypeVar("T")

WIDTH, HEIGHT = 380, 264
"""CSS pixels: the width of a phone, so that text keeps its size there."""
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""Metric-compatible on every system, so that what the renderer measured is what the reader sees."""
TITLE_LETTERS = 56
"""Letters of a title that fit on a line."""
_CONFIG = {
    "font": FONT,
    "aria": False,
    "title": {
        **{"anchor": "start", "frame": "bounds", "fontSize": 13, "fontWeight": 600, "color": "currentColor"},
        **{"subtitleFontSize": 10, "subtitleColor": "currentColor", "subtitlePadding": 4, "offset": 10, "limit": WIDTH},
    },
    "axis": {
        **{"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 10.5, "titleFontSize": 10.5},
        **{"titleFontWeight": "normal", "gridColor": "var(--rule)"},
        **{"domainColor": "var(--muted)", "tickColor": "var(--muted)"},
    },
    "axisY": {"domain": False, "ticks": False},
    "axisX": {"labelFlush": False},
    "legend": {
        **{"labelColor": "currentColor", "labelFontSize": 11},
        **{"symbolStrokeWidth": 1.6, "symbolFillColor": "transparent"},
    },
    "view": {"stroke": None},
}
"""Of every picture, in Vega-Lite's own words."""


@dataclass(frozen=True)
class Picture:
    title: str
    provenance: str
    svg: str | None
    """None: there is nothing to draw."""


def unchecked(draw: Callable[P, T]) -> Callable[P, T]:
    """`draw` without Altair's check of every part as it is made."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> T:
        with debug_mode(False):
            return draw(*args, **kwargs)

    return drawn


def framed(
    title: str,
    shown_for: Row | Sequence[Row],
    chart: Any,
    *,
    height: int = HEIGHT,
    more: Sequence[str] = (),
    subtitle: Sequence[str] | None = None,
) -> Picture:
    """The chart under a title that says where its numbers come from, with `more` below it.

    `shown_for`: the rows behind the picture, or any row of the run. A picture of many labs has a `subtitle` of its own.
    """
    rows = [shown_for] if isinstance(shown_for, Mapping) else shown_for
    row, provenance = rows[0], provenance_of(shown_for)
    subtitle = _subtitle(shown_for, more) if subtitle is None else subtitle
    # The specification is checked by the renderer alone: Altair's own checks and copies took three quarters of a page.
    spec = chart.to_dict(validate=False) | {
        "width": WIDTH,
        "height": height,
        "background": "transparent",
        "padding": 4,
        "autosize": {"type": "fit", "contains": "padding"},
        "title": {
            "text": textwrap.wrap(f"{title} · {row['provenance']}, {row['target']}", TITLE_LETTERS),
            "subtitle": subtitle,
        },
        "config": _CONFIG,
    }
    svg = _svg(json.dumps(spec, sort_keys=True))
    return Picture(title, provenance, _inline(svg, f"{title}. {row['lab']}, {provenance}"))


def provenance_of(shown_for: Row | Sequence[Row]) -> str:
    """Where a picture's numbers come from: of a run, or of all labs of a target together."""
    row = shown_for if isinstance(shown_for, Mapping) else shown_for[0]
    return provenance_line(row) if "pace" in row else f"{row['provenance']} · target {row['target']}"


def _subtitle(shown_for: Row | Sequence[Row], more: Sequence[str]) -> list[str]:
    rows = [shown_for] if isinstance(shown_for, Mapping) else shown_for
    row, variants = rows[0], in_order(one["variant"] for one in rows)
    where = f"{row['lab']} {variants[0]}" if len(variants) == 1 and not isinstance(shown_for, Mapping) else row["lab"]
    subtitle = [f"{where} · {clock(row)} · pace {row['pace']} · {engine(row)}", *more]
    if outside := sum("stage" in one and outside_range(one) is not None for one in rows):
        all_of_it = "" if outside == len(rows) else "partly "
        subtitle.append(f"{all_of_it}outside of what the model was compared with")
    return subtitle


def _svg(spec: str) -> str:
    """The picture of a Vega-Lite specification."""
    return drawn(
        spec,
        lambda spec: vl_convert.vegalite_to_svg(spec, allowed_base_urls=[]),
        renderer=f"vl-convert {version('vl-convert-python')}",
    )


def standalone(svg: str) -> str:
    """A picture as a file of its own, with the page's colours in it, for light and for dark."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    style = f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"
    at = svg.index(">") + 1
    return f"{svg[:at]}<style>{style}svg{{color:var(--ink);background:var(--page)}}</style>{svg[at:]}"


def _inline(svg: str, label: str) -> str:
    """The SVG with a root that scales with the page and is read out as one picture."""
    box = re.search(r'viewBox="([0-9. -]+)"', svg)
    if box is None:
        raise ValueError("the renderer returned an SVG without a viewBox")
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    root = f'role="img" aria-label="{html.escape(label)}" viewBox="{box[1]}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {root}>{body}'
