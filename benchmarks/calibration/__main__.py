"""Compares the engine model with every row of a file: prints the errors beside their bounds, writes JSON and a plot.

    python -m benchmarks.calibration [--rows FILE]

It exits with 0 also where a bound is missed, and says so; with 2 for a file that can't be compared. Doesn't belong
here: the comparison (compare.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import altair as alt
import vl_convert
from rich.console import Console
from rich.table import Table

from benchmarks.calibration.compare import Compared, compare
from benchmarks.calibration.rows import ROWS, read_rows
from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.engine.args import EngineArgsError
from lab_pipelines.engine.memory import GpuMemoryError
from lab_pipelines.engine.tables import UnknownNameError

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description="Compares the engine model with measurements: prints each error, writes JSON and a plot.",
    )
    parser.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="measurements in the form of rows.yaml")
    path: Path = parser.parse_args(arguments).rows
    try:
        compared = compare(read_rows(path))
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    except (EngineArgsError, GpuMemoryError, UnknownNameError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    Console(width=165).print(as_table(compared))
    # The project's own rows keep their place; a file from elsewhere gets its own beside them.
    result = RESULTS / ("calibration.json" if path == ROWS else f"calibration-{path.stem}.json")
    picture = result.with_suffix(".svg")
    result.parent.mkdir(exist_ok=True)
    content = [{**asdict(one), "error": one.error, "met": one.met} for one in compared]
    result.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    picture.write_text(plot(compared), encoding="utf-8")
    missed = [f"{one.row}, {one.quantity}" for one in compared if one.met is False]
    print(f"beyond their bound: {'; '.join(missed) or 'none'}; written to {result} and {picture}")
    return 0


def as_table(compared: Sequence[Compared]) -> Table:
    """For a terminal."""
    table = Table("row", "quantity", "measured", "modelled", "error", "fitted", "bound", "met")
    for one in compared:
        measured = f"{one.measured:,.4g} {one.unit}" if one.measured is not None else ""
        modelled = f"{one.modelled:,.4g}" if measured else f"{one.modelled:,.4g} {one.unit}"
        error = f"{one.error:+.1%}" if one.error is not None else ""
        bound = f"{one.bound:.0%}" if one.bound is not None else ""
        met = {True: "yes", False: "NO", None: ""}[one.met]
        table.add_row(one.row, one.quantity, measured, modelled, error, "yes" if one.fitted else "", bound, met)
    return table


def plot(compared: Sequence[Compared]) -> str:
    """SVG: the curves of every sweep, measured and modelled, above the error of every row."""
    sweeps = [_sweep(compared, sweep) for sweep in dict.fromkeys(one.sweep for one in compared if one.sweep)]
    parts = [*sweeps, *([_errors(compared)] if any(one.measured is not None for one in compared) else [])]
    chart = alt.vconcat(*parts).resolve_scale(color="independent", shape="independent")
    return vl_convert.vegalite_to_svg(chart.to_json(), allowed_base_urls=[])


def _sweep(compared: Sequence[Compared], sweep: str) -> alt.HConcatChart:
    mine = [one for one in compared if one.sweep == sweep]
    by_load = {(one.load, one.quantity): one for one in mine}
    loads = sorted({one.load for one in mine if one.load is not None})
    panels: list[alt.Chart] = []
    for quantity, title in (("ITL", "ITL, ms"), ("output", "output, tokens/s")):
        points = [
            {"users": getattr(by_load[load, "concurrency"], who), "value": getattr(by_load[load, quantity], who)}
            | {"who": who}
            for load in loads
            for who in ("measured", "modelled")
        ]
        panels.append(
            alt.Chart(
                alt.Data(values=[point for point in points if None not in point.values()]), title=f"{sweep}: {title}"
            )
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
            "kind": "fitted" if one.fitted else "held to a bound" if one.bound is not None else "reported",
        }
        for one in compared
        if one.error is not None
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
