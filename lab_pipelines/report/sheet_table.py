"""How the FinOps sheet reads: one run's as Markdown, and the cells of the year's reference sheet with their intervals.

Belongs here: which quantities are shown, in which order, units and digits. Doesn't belong here: where the rows come
from (session_sheets.py, the view `reference_sheet`), or the terminal (cli/cost_sheet.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab_pipelines.report.wording import (
    GAP,
    GAP_NOTE,
    Row,
    decimals_for,
    duration,
    markdown_text,
    number,
    percent,
    provenance_line,
    short,
)
from lab_pipelines.words import load_in_words

NO_INTERVAL = "?"
"""Follows a value of several trials that has no interval; one trial never has any."""


@dataclass(frozen=True)
class Shown:
    key: str
    """Column of `finops_sheet`, quantity of `reference_sheet`."""
    name: str


PRICES = (
    Shown("input_usd_per_1k_tokens", "USD/1K in"),
    Shown("output_usd_per_1k_tokens", "USD/1K out"),
    Shown("usd_per_1k_tokens", "USD/1K all"),
    Shown("usd_per_1k_useful_tokens", "USD/1K useful"),
    Shown("usd_per_request", "USD/request"),
)
SHARES = (
    Shown("useful_share", "useful"),
    Shown("efficiency", "serving"),
    Shown("idle_share", "idle"),
)


def sheet_markdown(rows: Sequence[Row]) -> str:
    """Rows of `finops_sheet` of one run as Markdown: a table for each session, its whole in the last line."""
    sessions: dict[str, list[Row]] = {}
    for row in rows:
        sessions.setdefault(row["session_id"], []).append(row)
    return "\n\n".join(_session_markdown(of_session) for of_session in sessions.values())


def _session_markdown(rows: Sequence[Row]) -> str:
    first, prices = rows[0], [_prices(shown, rows) for shown in PRICES]
    turn = "" if first["trial"] == 1 else f", turn {first['trial']}"
    names = ["load", "requests", *(s.name for s in (*PRICES, *SHARES)), "idle GPU-h", "USD"]
    lines = [
        f"**{markdown_text(first['lab'])} {markdown_text(first['variant'])}**{turn} · "
        + markdown_text(f"{first['state']} · {provenance_line(first)}"),
        "",
        "| " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * (len(names) - 1),
    ]
    for row, *of_row in zip(rows, *prices, strict=True):
        cells = [_load(row), number(row["requests"], 0), *of_row, *(percent(row[s.key]) for s in SHARES)]
        cells += [_or_gap(row["idle_gpu_hours"]), _or_gap(row["usd"])]
        lines.append("| " + " | ".join(markdown_text(cell) for cell in cells) + " |")
    whole = rows[-1]
    notes = [GAP_NOTE] if any(GAP in line for line in lines[4:]) else []
    if whole["cold_start_requests"] is not None:
        notes.append(f"The cold start cost as much as {short(whole['cold_start_requests'])} warm requests.")
    if whole["break_even_idle_s"] is not None:
        notes.append(
            f"Idle for longer than {duration(whole['break_even_idle_s'])}, the nodes had better been given back."
        )
    return "\n".join([*lines, *(["", " ".join(notes)] if notes else [])])


def _prices(shown: Shown, rows: Sequence[Row]) -> list[str]:
    decimals = decimals_for([row[shown.key] for row in rows], significant=3, at_most=7)
    return [number(row[shown.key], decimals) for row in rows]


def _or_gap(value: float | None) -> str:
    return GAP if value is None else short(value)


def _load(row: Row) -> str:
    if row["stage"] is None:
        return "whole session"
    return f"{row['step']}: {load_in_words(row['users'], row['offered_per_s'])}"


def interval_cell(row: Row | None) -> str:
    """A quantity of `reference_sheet` with how far its interval reaches, at its farther end: `0.0123 ±8 %`."""
    if row is None:
        return GAP
    value = percent(row["value"]) if row["unit"] == "share" else short(row["value"])
    if row["low"] is None or row["high"] is None:
        return f"{value} {NO_INTERVAL}" if row["trials"] > 1 else value
    if row["unit"] == "share":
        return f"{value} [{percent(row['low'])}, {percent(row['high'])}]"
    if not row["value"]:
        return f"{value} [{short(row['low'])}, {short(row['high'])}]"
    reach = max(row["high"] / row["value"] - 1, 1 - row["low"] / row["value"])
    return f"{value} ±{percent(reach)}"


def session_lines(found: Mapping[str, Row]) -> list[str]:
    """What a configuration's whole sessions say of waiting, a line each; `found` by quantity."""

    def cell(quantity: str) -> str:
        return interval_cell(found.get(quantity))

    lines = [
        f"node time: {cell('efficiency')} serving, {cell('idle_share')} idle",
        f"idle: {cell('idle_gpu_hours')} GPU-hours, {cell('idle_usd')} USD of {cell('usd')} USD for the session",
    ]
    if "useful_share" in found:
        lines.append(f"useful: {cell('useful_share')} of the requests, at {cell('usd_per_useful_request')} USD each")
    if "cold_start_requests" in found:
        lines.append(f"cold start: as much as {cell('cold_start_requests')} warm requests")
    if "break_even_idle_s" in found:
        lines.append(f"to zero: cheaper where the nodes would be idle for longer than {cell('break_even_idle_s')} s")
    return lines
