"""`labs forecast`: what a lab's rehearsal said, beside what came of its runs. A table here, and a picture in a file.

Doesn't belong here: which numbers are compared (the view `forecast_vs_measured`), or how the picture looks
(lab_pipelines/report/forecast.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, LabArgument, known_lab, settings_for, targets, warehouse_of
from lab_pipelines.report.wording import GAP, OUTSIDE, ROUGH, ROUGH_NOTE, outside_range, percent, provenance_line, short

Row = dict[str, Any]

_ROWS = """
    FROM forecast_vs_measured
    WHERE lab = $lab AND ($target IS NULL OR target = $target)
    QUALIFY run_id = first_value(run_id) OVER (PARTITION BY target ORDER BY recorded_at DESC, run_id)
    ORDER BY target, session_id, step, stage
"""
"""Of the newest run on each target."""


_TargetOption = Annotated[
    str | None, typer.Option("--target", help="Where it was run; unset: everywhere.", autocompletion=targets)
]


def forecast(lab: LabArgument, target: _TargetOption = None, as_json: JsonOption = False) -> None:
    """A lab's newest rehearsal beside its newest run on every other target: forecast, measured, error."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.report.read import FORECAST_ERROR
    from resources.contract import WarehouseError

    if target == "rehearsal":
        fail("--target rehearsal is the forecast itself; name the run's target, or none for all", code=WRONG_CALL)
    with explained(SpecError, WarehouseError):
        settings = settings_for(target)
        identity = known_lab(load_catalog(), lab)
        warehouse = warehouse_of(settings)
        rows = warehouse.query(_ROWS, {"lab": lab, "target": target})
        errors = warehouse.query(FORECAST_ERROR.read_text(encoding="utf-8"))
    if not rows:
        where = f"on target {target}" if target else "on another target"
        fail(
            f"{lab} has nothing to compare: it takes a rehearsal (labs run {lab} --target rehearsal) and a run {where} "
            f"of a variant that was rehearsed (labs run {lab} --target {target or 'local'})"
        )
    runs = {name: [row for row in rows if row["target"] == name] for name in sorted({row["target"] for row in rows})}
    of_runs = [row for row in errors if row["run_id"] in {row["run_id"] for row in rows}]
    if as_json:
        print_json({"lab": lab, "compared": rows, "errors": of_runs})
        return
    say(f"{lab} · {identity.title}", style="bold")
    for name, compared in runs.items():
        _print_run(compared, [row for row in of_runs if row["target"] == name])
        say(f"\nPicture  {_picture(compared, settings.data_dir / 'report' / f'forecast-{lab}-{name}.svg')}")


def _print_run(rows: Sequence[Row], errors: Sequence[Row]) -> None:
    from lab_pipelines.report.forecast import QUANTITIES, against, in_quantity_order

    first = rows[0]
    say(f"\n{against(first)}", style="bold")
    say(f"forecast  {first['forecast_provenance']} · target rehearsal · pace {first['forecast_pace']}")
    say(f"measured  {provenance_line(first)}")
    several = len({row["variant"] for row in rows}) > 1
    columns = [*(["variant"] if several else []), "step", "load", "quantity", "forecast", "measured", "error"]
    lines = [
        [
            *([row["variant"]] if several else []),
            row["step"] or "session",
            f"{row['load'] or GAP}{f' {OUTSIDE}' * (outside_range(row) is not None)}",
            QUANTITIES[row["quantity"]],
            short(row["forecast"]),
            short(row["measured"]),
            f"{f'{ROUGH} ' * (not row['supported'])}{percent(row['error'], signed=True)}",
        ]
        for row in sorted(in_quantity_order(rows), key=lambda r: (r["session_id"], r["step"] or "~", r["stage"] or 0))
    ]
    print_table(columns, lines, right=range(len(columns) - 3, len(columns)))
    say("\nerrors over all stages, without quantiles of too few requests", style="bold")
    print_table(
        ["quantity", "compared", "median", "worst", "worst at"],
        [
            [
                QUANTITIES[row["quantity"]],
                str(row["compared"]),
                percent(row["median_abs_error"]),
                percent(row["worst_abs_error"]),
                row["worst_at"],
            ]
            for row in in_quantity_order(errors)
        ],
        right=[1, 2, 3],
    )
    if not all(row["supported"] for row in rows):
        say(ROUGH_NOTE, style="dim")
    for reason in sorted({reason for row in rows if (reason := outside_range(row))}):
        say(f"{OUTSIDE} {reason}", style="dim")


def _picture(rows: Sequence[Row], path: Path) -> Path | str:
    """Write the run's picture. Says so instead where no error is known."""
    from lab_pipelines.report.forecast import picture
    from lab_pipelines.report.svg import standalone
    from lab_pipelines.report.write import replace_file

    drawn = picture(rows)
    if drawn.svg is None:
        return "none: no quantity is known on both sides"
    try:
        replace_file(path, standalone(drawn.svg))
    except OSError as error:
        fail(f"{path} can't be written: {error}")
    return path
