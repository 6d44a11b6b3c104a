"""`labs drift`: how a lab's numbers moved from run to run: levels, steps, runs that lie apart. L06 is the canary.

Doesn't belong here: what is a step (lab_pipelines/statistics/drift.py), which rows make a number (regression_runs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.console import explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, TargetOption, known_lab, settings_for, warehouse_of
from lab_pipelines.cli.regress import QuantityOption, chosen_quantities
from lab_pipelines.report.wording import GAP, percent, short
from lab_pipelines.words import counted

if TYPE_CHECKING:
    from lab_pipelines.run_numbers import Cell, Run
    from lab_pipelines.statistics.drift import Drift

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 40
"""Runs in a terminal's picture; the newest ones."""


def drift(
    lab: Annotated[str, typer.Option(help="E.g. L06, the year's control group.")] = "L06",
    target: TargetOption = None,
    quantity: QuantityOption = None,
    as_json: JsonOption = False,
) -> None:
    """How a lab's numbers moved from run to run: steps, runs that lie apart, or noise."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.regression_runs import runs_of
    from resources.contract import WarehouseError

    quantities = chosen_quantities(quantity)
    with explained(SpecError, WarehouseError):
        settings = settings_for(target)
        identity = known_lab(load_catalog(), lab)
        runs = [run for run in runs_of(warehouse_of(settings), lab, settings.target) if run.invalid_reason is None]
    if not runs:
        fail(f"{lab} has no run on target {settings.target} yet: labs run {lab} --target {settings.target}")
    kinds: dict[tuple[str, str, str, float], list[Run]] = {}
    for run in runs:
        kinds.setdefault((run.provenance, run.engine, run.pace, run.time_scale), []).append(run)
    told = {
        kind: [(cell, series) for cell, series in _series(of_kind) if cell.quantity in quantities]
        for kind, of_kind in kinds.items()
    }
    if as_json:
        print_json(
            [_plain(kind, cell, series, settings.target) for kind, found in told.items() for cell, series in found]
        )
        return
    say(f"{lab} · {identity.title}", style="bold")
    for kind, found in told.items():
        provenance, engine, pace, time_scale = kind
        about = f"{provenance} · target {settings.target} · {engine} · pace {pace} at {time_scale:g} x"
        say(f"\n{about} · {counted(len(kinds[kind]), 'run')}", style="bold")
        # Every stage only where one quantity is asked for: the rest is for --json.
        _print([one for one in found if quantity or one[0].is_whole] or found)


def _series(runs: Sequence[Run]) -> list[tuple[Cell, list[tuple[Run, float]]]]:
    """Of each cell of the newest run, its value in each run that has it, oldest first."""
    from lab_pipelines.run_numbers import numbers_of

    cells = list(runs[-1].numbers)
    found: dict[Cell, list[tuple[Run, float]]] = {}
    for run in runs:
        for cell, number in numbers_of(run, cells).items():
            found.setdefault(cell, []).append((run, number.value))
    return sorted(found.items(), key=lambda one: (one[0].variant, one[0].quantity.name, not one[0].is_whole))


def _print(found: Sequence[tuple[Cell, list[tuple[Run, float]]]]) -> None:
    from lab_pipelines.statistics.drift import drift as told_apart

    drifts = [told_apart([value for _, value in series]) for _, series in found]
    print_table(
        ["where", "quantity", "newest", "spread", "runs, oldest first", "verdict"],
        [
            [
                cell.place,
                cell.quantity.name,
                short(series[-1][1]),
                _spread(one),
                sparkline([value for _, value in series], [level.start for level in one.levels[1:]]),
                one.reason,
            ]
            for (cell, series), one in zip(found, drifts, strict=True)
        ],
        right=[2, 3],
    )
    for (cell, series), one in zip(found, drifts, strict=True):
        for index in one.outliers:
            run, value = series[index]
            when = f"{run.recorded_at:%Y-%m-%d %H:%M}"
            say(
                f"apart: {cell.quantity.name} of {cell.place}: {short(value)} in run {run.run_id} of {when}",
                style="dim",
            )


def _spread(drift: Drift) -> str:
    """Of the runs about their level, relative to the last one."""
    return percent(drift.scale / abs(drift.levels[-1].value)) if drift.scale is not None else GAP


def sparkline(values: Sequence[float], steps: Sequence[int]) -> str:
    """The newest runs as bars from the lowest to the highest, a line before each of `steps`."""
    first = max(0, len(values) - _SHOWN)
    low, high = min(values), max(values)
    # Values that differ by less than a thousandth are one line, and no mountain range.
    reach = high - low if high - low > 1e-3 * abs(high) else 0.0
    return "".join(
        "│" * (index in steps and index > first) + _BARS[round((value - low) / reach * 7) if reach else 3]
        for index, value in enumerate(values)
        if index >= first
    )


def _plain(
    kind: tuple[str, str, str, float], cell: Cell, series: Sequence[tuple[Run, float]], target: str
) -> dict[str, Any]:
    from lab_pipelines.statistics.drift import drift as told_apart

    provenance, engine, pace, time_scale = kind
    found = told_apart([value for _, value in series])
    return {
        "target": target,
        **{"provenance": provenance, "engine": engine, "pace": pace, "time_scale": time_scale},
        **{"variant": cell.variant, "step": cell.step, "load": cell.load, "quantity": cell.quantity.name},
        "runs": [{"run_id": run.run_id, "recorded_at": run.recorded_at, "value": value} for run, value in series],
        **{name: value for name, value in asdict(found).items() if name != "levels"},
        "levels": [asdict(level) for level in found.levels],
    }
