"""Compares the engine model with every row of rows.yaml: prints the errors beside their bounds, writes JSON and a plot.

    python -m benchmarks.calibration

It exits with 0 also where a bound is missed, and says so. Doesn't belong here: the comparison (compare.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import altair as alt
import vl_convert
from rich.console import Console
from rich.table import Table

from benchmarks.calibration.compare import Compared, compare, read_rows

RESULT = Path(__file__).parents[1] / "results" / "calibration.json"
PLOT = RESULT.with_suffix(".svg")


def main() -> int:
    """Print the table, write JSON and plot."""
    compared = compare(read_rows())
    Console(width=150).print(as_table(compared))
    RESULT.parent.mkdir(exist_ok=True)
    content = [{**asdict(one), "error": one.error, "met": one.met} for one in compared]
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    PLOT.write_text(plot(compared), encoding="utf-8")
    missed = [f"{one.row}, {one.quantity}" for one in compared if one.met is False]
    print(f"beyond their bound: {'; '.join(missed) or 'none'}; written to {RESULT} and {PLOT}")
    return 0


def as_table(compared: Sequence[Compared]) -> Table:
    """For a terminal."""
    table = Table("row", "quantity", "measured", "modelled", "error", "bound", "met")
    for one in compared:
        bound = f"{one.bound:.0%}" if one.bound is not None else ""
        met = {True: "yes", False: "NO", None: ""}[one.met]
        values = [f"{one.measured:,.4g} {one.unit}", f"{one.modelled:,.4g}", f"{one.error:+.1%}", bound, met]
        table.add_row(one.row, one.quantity, *values)
    return table


def plot(compared: Sequence[Compared]) -> str:
    """SVG: the sweep's curves, measured and modelled, above the error of every row."""
    chart = alt.vconcat(_sweep(compared), _errors(compared)).resolve_scale(color="independent", shape="independent")
    return vl_convert.vegalite_to_svg(chart.to_json(), allowed_base_urls=[])


def _sweep(compared: Sequence[Compared]) -> alt.HConcatChart:
    loads = sorted({one.load for one in compared if one.load is not None})
    by_load = {(one.load, one.quantity): one for one in compared if one.load is not None}
    panels: list[alt.Chart] = []
    for quantity, title in (("ITL", "ITL, ms"), ("output", "output, tokens/s")):
        points = [
            {"users": getattr(by_load[load, "concurrency"], who), "value": getattr(by_load[load, quantity], who)}
            | {"who": who}
            for load in loads
            for who in ("measured", "modelled")
        ]
        panels.append(
            alt.Chart(alt.Data(values=points), title=f"KAITO's sweep: {title}")
            .mark_line(point=True)
            .encode(
                x=alt.X("users:Q", title="requests at once", scale=alt.Scale(type="log")),
                y=alt.Y("value:Q", title=title),
                color=alt.Color("who:N", title=None),
                order="users:Q",
            )
            .properties(width=300, height=200)
        )
    return alt.hconcat(*panels)


def _errors(compared: Sequence[Compared]) -> alt.Chart:
    points = [
        {
            "row": one.row,
            "quantity": one.quantity,
            "ratio": round(1 + one.error, 4),
            "kind": "held to a bound" if one.bound is not None else "reported",
        }
        for one in compared
    ]
    return (
        alt.Chart(alt.Data(values=points), title="Engine model against public measurements")
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("ratio:Q", title="modelled / measured", scale=alt.Scale(type="log", nice=False)),
            y=alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=440)),
            shape=alt.Shape("quantity:N", title=None),
            color=alt.Color("kind:N", title=None),
        )
        .properties(width=420)
    )


if __name__ == "__main__":
    sys.exit(main())
