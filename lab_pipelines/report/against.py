"""A run beside the year's baseline, variant by variant.

Belongs here: which of the view `baseline_deltas`'s ratios are told, and what they are ratios to. Doesn't belong here:
what is compared with what (warehouse/views), the year's table (year.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab_pipelines.report.wording import GAP, Row, in_order, markdown_text, short

BASELINE_LAB = "L06"
"""The year's control group."""

_COLUMNS = (
    ("peak", "output_tokens_per_s", "fastest stage, tokens/s"),
    ("peak", "usd_per_1k_tokens", "cheapest stage, USD per 1K"),
    ("same load", "output_tokens_per_s", "tokens/s"),
    ("same load", "ttft_p50_s", "TTFT p50"),
    ("same load", "ttft_p95_s", "TTFT p95"),
    ("same load", "usd_per_1k_tokens", "USD per 1K"),
)
NOTE = (
    "Ratios to the baseline: the best stage to its best one, whatever their loads; the others stage by stage at as "
    "many users or at the same rate, from the lowest to the highest."
)


@dataclass(frozen=True)
class Against:
    """A run's ratios to the baseline, or why there are none."""

    said: str
    """What the baseline is and what else differs; or why nothing compares."""
    headers: list[str]
    lines: list[tuple[str, list[str]]]
    """The variants that compare, each with a text under each header."""


def against_baseline(rows: Sequence[Row], variants: Sequence[str]) -> Against | None:
    """Of a run's rows of report/sql/deltas.sql.

    None where there are none, and for the baseline lab's own run where no other one is pinned.
    """
    compared = [row for row in rows if row["compared"]]
    if not compared:
        reasons = in_order(row["reason"] for row in rows if row["reason"])
        if not reasons or rows[0]["lab"] == BASELINE_LAB:
            return None
        return Against(f"Not compared with {BASELINE_LAB}: {'; '.join(reasons)}.", [], [])
    caveats = in_order(row["caveat"] for row in compared if row["caveat"])
    but = f" What else differs: {'; '.join(caveats)}." if caveats else ""
    ratios = {(row["variant"], row["comparison"], row["quantity"]): _ratios(row) for row in compared}
    names = [name for name in variants if any(row["variant"] == name for row in compared)]
    shown = [column for column in _COLUMNS if any((name, *column[:2]) in ratios for name in names)]
    return Against(
        said=f"Against {_all_of(source_of(row) for row in compared)}.{but}",
        headers=[header for _, _, header in shown],
        lines=[(name, [ratios.get((name, *column[:2]), GAP) for column in shown]) for name in names],
    )


def against_markdown(found: Against) -> list[str]:
    """The same as Markdown."""
    if not found.lines:
        return [markdown_text(found.said)]
    return [
        f"{markdown_text(found.said)} {NOTE}",
        "",
        "| " + " | ".join(["variant", *found.headers]) + " |",
        "| --- |" + " ---: |" * len(found.headers),
        *(f"| {markdown_text(variant)} | {' | '.join(cells)} |" for variant, cells in found.lines),
    ]


def source_of(row: Row) -> str:
    """What a row of peaks.sql or deltas.sql is compared with."""
    if row["baseline_file"] is None:
        return f"{BASELINE_LAB}'s newest run there, not pinned ({row['baseline_run_id']})"
    return f"{BASELINE_LAB}'s baseline {row['baseline_file']}, pinned {row['pinned_at']:%Y-%m-%d}"


def sources(rows: Iterable[Row]) -> str:
    """All that these rows of peaks.sql are compared with; empty where nothing compares."""
    return _all_of(source_of(row) for row in rows if row["ratio"] is not None)


def _all_of(told: Iterable[str]) -> str:
    return " and ".join(in_order(told))


def _ratios(row: Row) -> str:
    low, high = short(row["low"]), short(row["high"])
    return f"{low} x" if low == high else f"{low} to {high} x"
