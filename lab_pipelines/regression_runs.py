"""Reads the runs that a regression check compares, from the warehouse and from pinned baselines.

Belongs here: which rows make a number, and how sure a run is of it by its own requests. Doesn't belong here: what
follows from the numbers (regression.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from lab_pipelines.baseline import Baseline
from lab_pipelines.run_numbers import QUANTITIES, Cell, Number, Quantity, Run
from lab_pipelines.statistics.estimate import CONFIDENCE, Estimate, refused
from lab_pipelines.statistics.means import mean
from lab_pipelines.statistics.quantiles import quantile

if TYPE_CHECKING:
    from resources.lake import Within
    from resources.warehouse_core import WarehouseCore

Row = Mapping[str, Any]

_STAGES = Path(__file__).parent / "regression_stages.sql"
_SERIES = Path(__file__).parent / "regression_series.sql"
_DETAILS = ("model", "sku", "spec_digest", "values_digest")


def runs_of(warehouse: WarehouseCore, lab: str, target: str) -> list[Run]:
    """The lab's runs on `target` that sent load, oldest first, marked ones too. No number has a spread yet."""
    rows = warehouse.query(
        _STAGES.read_text(encoding="utf-8"), {"lab": lab, "target": target}, within={"lab": lab, "target": target}
    )
    by_run: dict[str, list[Row]] = {}
    for row in rows:
        by_run.setdefault(row["run_id"], []).append(row)
    return sorted((_run(of_run) for of_run in by_run.values()), key=lambda run: run.recorded_at)


def with_spreads(warehouse: WarehouseCore, run: Run, lab: str, target: str, *, pinned: bool = False) -> Run:
    """The run with the spread of each number by its own requests, where these are enough.

    A price's is its throughput's: what a stage's nodes cost is known exactly. Of several trials of a variant, which are
    one number, the spreads are taken as independent; but a `pinned` number is that of the session that speaks alone.
    """
    within: Within = {"lab": lab, "target": target, "run_id": run.run_id}
    stages = warehouse.query(_STAGES.read_text(encoding="utf-8"), {"lab": lab, "target": target}, within=within)
    of_run = warehouse.query(_SERIES.read_text(encoding="utf-8"), {"run_id": run.run_id}, within=within)
    series = {(row["session_id"], row["step"], row["stage"]): row for row in of_run}
    spreads: dict[Cell, list[float | None]] = {}
    for row in (row for row in stages if row["speaks"] or not pinned):
        of_stage = series.get((row["session_id"], row["step"], row["stage"]), {})
        for quantity in _quantities(row):
            if row[quantity.column]:
                spreads.setdefault(_cell(row, quantity), []).append(_spread(stage_estimate(of_stage, quantity)))
    numbers = dict(run.numbers)
    for cell, each in spreads.items():
        known = [spread for spread in each if spread is not None]
        if cell in numbers and len(known) == len(each):
            numbers[cell] = replace(numbers[cell], spread=math.hypot(*known) / len(known))
    return replace(run, numbers=numbers)


def stage_estimate(series: Row, quantity: Quantity) -> Estimate:
    """A stage's number with the interval that its own requests give it; `series` is a row of regression_series.sql."""
    name, _, percent = quantity.name.rpartition("_p")
    if name and percent.isdigit():
        return quantile(series.get(f"{name}_s") or [], int(percent) / 100)
    tokens = series.get("tokens_per_s")
    return mean(tokens) if tokens else refused(None, 0, "batch means", "no token arrived")


def pinned_run(baseline: Baseline) -> Run:
    """A pinned baseline as a run; what its requests were is not in the file."""
    content = baseline.content
    numbers: dict[Cell, Number] = {}
    for variant, of_variant in content["variants"].items():
        seen: dict[tuple[object, ...], int] = {}
        for stage in of_variant["stages"]:
            load = (stage["step"], stage.get("users"), stage.get("offered_per_s"))
            seen[load] = seen.get(load, 0) + 1
            words = f"{load[2]:g}/s" if load[1] is None else f"{load[1]} user{'s' * (load[1] != 1)}"
            for quantity in _quantities(stage):
                if value := stage.get(quantity.column):
                    cell = Cell(variant, *load, seen[load], quantity, words)
                    numbers[cell] = Number(value, None, stage["requests"])
    return Run(
        content["run_id"],
        datetime.fromisoformat(content["pinned_at"]),
        **{name: content[name] for name in ("engine", "provenance", "pace", "time_scale")},
        numbers=numbers,
        details=_details(
            [{"variant": k, "spec_digest": content["spec_digest"], **v} for k, v in content["variants"].items()]
        ),
    )


def _run(rows: Sequence[Row]) -> Run:
    first = rows[0]
    values: dict[Cell, list[tuple[float, int]]] = {}
    for row in rows:
        for quantity in _quantities(row):
            if value := row[quantity.column]:
                values.setdefault(_cell(row, quantity), []).append((value, row["requests"]))
    return Run(
        first["run_id"],
        max(row["recorded_at"] for row in rows),
        **{name: first[name] for name in ("engine", "provenance", "pace", "time_scale")},
        numbers={
            # Several trials of a variant: their geometric mean.
            cell: Number(math.exp(math.fsum(math.log(v) for v, _ in each) / len(each)), None, sum(n for _, n in each))
            for cell, each in values.items()
        },
        details=_details(rows),
        invalid_reason=first["invalid_reason"],
    )


def _quantities(stage: Row) -> list[Quantity]:
    """Those of the kind of requests that the stage sent: plain GETs have no tokens."""
    return [quantity for quantity in QUANTITIES if quantity.of_gets == (stage["output_tokens_per_s"] is None)]


def _details(rows: Sequence[Row]) -> dict[str, str]:
    """What each variant ran on, in one text per detail; without what isn't known."""
    return {
        name: ", ".join(sorted({f"{row['variant']}: {row[name]}" for row in rows}))
        for name in _DETAILS
        if all(row[name] is not None for row in rows)
    }


def _cell(row: Row, quantity: Quantity) -> Cell:
    where = (row["variant"], row["step"], row["users"], row["offered_per_s"], row["nth"])
    return Cell(*where, quantity, row["load"])


def _spread(estimate: Estimate) -> float | None:
    """The standard error of the logarithm, from the interval."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0:
        return None
    return math.log(estimate.high / estimate.low) / (2 * NormalDist().inv_cdf((1 + CONFIDENCE) / 2))
