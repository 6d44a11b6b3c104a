"""`labs cost sheet`: the year's reference sheet. Doesn't belong here: its numbers (the view `reference_sheet`)."""

from __future__ import annotations

import csv
import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, known_lab
from lab_pipelines.deployment import TARGETS, Deployment

_SQL = Path(__file__).parent / "reference_sheet.sql"
_CONFIGURATION = (
    *("target", "lab", "variant", "provenance", "engine", "pace", "time_scale", "model", "values_digest"),
    *("sku", "region", "priority", "nodes", "slo_ttft_s", "slo_tpot_s", "slo_e2e_s"),
)


def sheet(
    lab: Annotated[str | None, typer.Option(help="Only this lab, e.g. L24.")] = None,
    target: Annotated[str | None, typer.Option(help=f"Only this target: {', '.join(TARGETS)}.")] = None,
    sku: Annotated[str | None, typer.Option(help="Only this machine type, e.g. Standard_NC4as_T4_v3.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
) -> None:
    """What everything costs that was tested, with intervals: the year's reference sheet."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog

    if as_json and as_csv:
        fail("--json and --csv exclude each other; give one", code=WRONG_CALL)
    if target is not None and target not in TARGETS:
        fail(f"--target {target}: expected one of {', '.join(TARGETS)}", code=WRONG_CALL)
    if lab is not None:
        with explained(SpecError):
            lab = known_lab(load_catalog(), lab).id
    rows = _read({"lab": lab, "target": target, "sku": sku})
    if as_json:
        print_json(rows)
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(rows[0] if rows else [])
        writer.writerows(row.values() for row in rows)
    elif not rows:
        asked = ", ".join(
            f"{name} {value}" for name, value in (("lab", lab), ("target", target), ("sku", sku)) if value
        )
        say(f"nothing has been tested yet{f' with {asked}' if asked else ''}: labs run L06")
    else:
        _print(rows)


def _read(chosen: dict[str, str | None]) -> list[dict[str, Any]]:
    from resources.contract import WarehouseError
    from resources.snapshot import SNAPSHOT, open_snapshot

    with explained(WarehouseError):
        path = Deployment.from_env(os.environ).data_dir / SNAPSHOT
        with open_snapshot(path) as connection:
            import duckdb

            try:
                cursor = connection.execute(_SQL.read_text(encoding="utf-8"), chosen)
            except duckdb.CatalogException:
                fail(f"{path} is older than this command: labs report builds it anew")
            columns = [column[0] for column in cursor.description or []]
            return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _print(rows: list[dict[str, Any]]) -> None:
    from lab_pipelines.report.sheet_table import NO_INTERVAL, PRICES, interval_cell, session_lines

    for _, group in groupby(rows, key=lambda row: tuple(row[name] for name in _CONFIGURATION)):
        configuration = list(group)
        say(f"\n{_title(configuration[0])}", style="bold")
        say(_about(configuration[0]))
        table, whole = list[list[str]](), dict[str, dict[str, Any]]()
        for (step, _), of_load in groupby(configuration, key=lambda row: (row["step"], row["stage"])):
            found = {row["quantity"]: row for row in of_load}
            any_row = next(iter(found.values()))
            whole = found if step is None else whole
            table.append(
                [
                    any_row["load"] if step is None else f"{step} {any_row['load']}",
                    str(any_row["trials"]),
                    *(interval_cell(found.get(shown.key)) for shown in PRICES),
                ]
            )
        print_table(["load", "trials", *(shown.name for shown in PRICES)], table, right=range(1, 7))
        for line in session_lines(whole):
            say(line)
    say(
        f"\n± the 95 % interval's farther end, from trials and price bounds; {NO_INTERVAL} none, and --json "
        "says why; one trial never has any. docs/finops.md says what each number is."
    )


def _title(row: dict[str, Any]) -> str:
    machine = row["sku"] or "a machine without a known price"
    rented = {"on_demand": " on demand", "spot": " Spot"}.get(row["priority"], "")
    return f"{row['lab']} {row['variant']} · {row['nodes'] or '?'} x {machine}{rented}"


def _about(row: dict[str, Any]) -> str:
    from lab_pipelines.report.wording import provenance_line

    bounds = [("TTFT", row["slo_ttft_s"]), ("TPOT", row["slo_tpot_s"]), ("E2E", row["slo_e2e_s"])]
    slo = ", ".join(f"{name} {bound:g} s" for name, bound in bounds if bound is not None)
    return " · ".join([provenance_line(row), row["model"] or "no model", f"useful: {slo}" if slo else "no objective"])
