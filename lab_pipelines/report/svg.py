"""A Vega-Lite chart → one inline SVG under a title that says where its numbers come from: pictures travel alone.

Colours are CSS variables of the page (`--series-1` … and `--muted`), text is `currentColor`, so that one SVG serves
light, dark and print. No network, no script.

Rows come from read.py, which takes out control characters: the renderer's XML writer aborts the process on one.

Doesn't belong here: what is drawn (charts.py, figures.py, money.py, forecast.py), axes and legends (axes.py).
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec

import vl_convert
from altair.utils.schemapi import debug_mode

from lab_pipelines.report.drawn import drawn
from lab_pipelines.report.wording import Row, clock, engine, in_order, outside_range, provenance_line

P = ParamSpec("P")

WIDTH, HEIGHT = 380, 264
"""CSS pixels: the width of a phone, so that text keeps its size there."""
FONT = "Arial, Helvetica, 'Liberation Sans', sans-serif"
"""Metric-compatible on every system, so that what the renderer measured is what the reader sees."""
TITLE_LETTERS = 48
"""Letters of a title that fit on a line, also in a font that is wider than the one that was measured."""
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

_DRAWING = ("svg", "axes", "charts", "forecast", "wording")
"""Modules of this package whose change may change a picture of the same arguments."""


@dataclass(frozen=True)
class Picture:
    title: str
    provenance: str
    svg: str | None
    """None: there is nothing to draw."""


def picture(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """`draw`, but not where a picture of the same values is kept (drawn.py); without Altair's check of every part.

    Making a specification takes a quarter of the time that drawing it does. So a picture is known by what it is made
    of: the arguments, whose `repr` must say all of it, and the code.
    """

    @wraps(draw)
    def shown(*args: P.args, **kwargs: P.kwargs) -> Picture:
        def anew(_: str) -> str:
            with debug_mode(False):
                return json.dumps(asdict(draw(*args, **kwargs)))

        made_of = f"{draw.__module__}.{draw.__qualname__}{args!r}{sorted(kwargs.items())!r}"
        return Picture(**json.loads(drawn(made_of, anew, renderer=_drawn_by())))

    return shown


@cache
def _drawn_by() -> str:
    """What draws: the renderers' versions, and the code of the modules that a picture is made by."""
    code = hashlib.sha256(b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in _DRAWING))
    return f"vl-convert {version('vl-convert-python')}, altair {version('altair')}, {code.hexdigest()}"


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
    text = json.dumps(spec, sort_keys=True)
    svg = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    # The renderer counts these from 0 in every process, and a page has pictures of several.
    svg = re.sub(r"\bclip(\d+)\b", rf"clip-{hashlib.sha256(text.encode()).hexdigest()[:12]}-\1", svg)
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
