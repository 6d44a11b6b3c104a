"""Forecast against measured, for a person: what a rehearsal said beside what came of it, as sentences and a picture.

Belongs here: how the comparison reads and looks. Doesn't belong here: which numbers are compared
(warehouse/views/80_forecast_vs_measured.sql) and what their tracked error is (warehouse/queries/forecast_error.sql).
"""

from __future__ import annotations

from collections.abc import Sequence

from lab_pipelines.report import svg
from lab_pipelines.report.axes import category_axis, legend, looks
from lab_pipelines.report.svg import Picture, framed
from lab_pipelines.report.wording import Row, in_order, provenance_line

QUANTITIES = {
    "output_tokens_per_s": "output tokens/s",
    "ttft_p50_s": "TTFT p50",
    "ttft_p95_s": "TTFT p95",
    "tpot_p50_s": "TPOT p50",
    "e2e_p50_s": "whole answer p50",
    "usd_per_1k_tokens": "USD per 1K tokens",
    "duration_s": "duration",
    "cold_start_s": "cold start",
    "usd": "USD of the session",
}
"""The view's quantities, as a person calls them."""


def in_quantity_order(rows: Sequence[Row]) -> list[Row]:
    """Rows that have a `quantity`, in the order in which a person meets these; what ties keeps its order."""
    order = list(QUANTITIES)
    return sorted(rows, key=lambda row: order.index(row["quantity"]))


def against(row: Row) -> str:
    """What the two sides of a comparison are."""
    if row["comparison"] == "model against measurement":
        return f"a rehearsal against what was measured on {row['target']}"
    return f"model against model: {row['target']} ran the modelled server, so nothing was measured"


@svg.picture
def picture(rows: Sequence[Row]) -> Picture:
    """The error of each quantity at each stage of one run. `rows` are the view's, of one lab, target and run."""
    import altair as alt

    first = rows[0]
    measured = first["comparison"] == "model against measurement"
    title = "Forecast against measured" if measured else "Forecast against the modelled server"
    known = [row for row in rows if row["error"] is not None]
    if not known:
        return Picture(title, provenance_line(first), None)
    present = {row["quantity"] for row in known}
    names = [name for quantity, name in QUANTITIES.items() if quantity in present]
    variants = in_order(row["variant"] for row in known)
    colours, shapes = looks(len(variants))
    points: list[object] = [
        {
            "quantity": QUANTITIES[row["quantity"]],
            "error": row["error"] * 100,
            "variant": row["variant"],
            "supported": row["supported"],
        }
        for row in known
    ]
    largest = max(max(abs(row["error"]) * 100 for row in known) * 1.1, 12.0)
    x = alt.X(
        "error:Q",
        title="forecast / measured - 1, percent" if measured else "rehearsal / modelled server - 1, percent",
        scale=alt.Scale(domain=[-largest, largest], nice=False),
        axis=alt.Axis(format="+.6~r", grid=True, tickCount=7),
    )
    shown = legend(variants)
    colour = alt.Color("variant:N", scale=alt.Scale(domain=variants, range=colours), legend=shown)
    marks = (
        alt.Chart(alt.Data(values=points))
        .mark_point(size=42, strokeWidth=1.6, opacity=1)
        .encode(
            x=x,
            y=alt.Y("quantity:N", sort=names, title=None, axis=category_axis()),
            color=colour,
            shape=alt.Shape("variant:N", scale=alt.Scale(domain=variants, range=shapes), legend=shown),
            fill=alt.condition("datum.supported", colour, alt.value("var(--page)")),
        )
    )
    zero = alt.Chart(alt.Data(values=[{"error": 0}])).mark_rule(color="var(--muted)", strokeWidth=1.4).encode(x=x)
    where = f"forecast on {first['forecast_provenance']}, rehearsal (pace {first['forecast_pace']})"
    return framed(title, known, zero + marks, more=[where])
