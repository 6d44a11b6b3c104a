"""Measures that are asked in SQL: one value from a file of warehouse/measures/, over a stage, a run, or all variants.

Belongs here: which parameters such a file may use. Doesn't belong here: measures by PromQL (resources/telemetry.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab_pipelines.catalog.measures import Measure
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.rows.common import Row
from lab_pipelines.rows.measures import WHOLE_RUN
from resources.telemetry import Reading
from resources.warehouse import Warehouse


def read_sql_measure(
    warehouse: Warehouse, measure: Measure, *, session: Mapping[str, Any], stage: Mapping[str, Any]
) -> Reading:
    """The one value that the measure's SQL file answers with; `session` is a row of `stack_sessions`.

    The file may use the parameters that `Measure` names. Only one `over: variants` sees other runs than its own. No row
    and NULL are gaps, never zeros, for the reason that its column `gap` gives if it has one. Raises `WarehouseError`
    for SQL that is wrong.
    """
    sql_file = measure.sql
    assert sql_file is not None
    sql = (REPO_ROOT / sql_file).read_text(encoding="utf-8")
    known = {
        "session_id": session["session_id"],
        "run_id": session["run_id"],
        "target": session["target"],
        "step": stage["step"],
        "stage": stage["stage"],
        "start": stage["started_at"],
        "end": stage["ended_at"],
    }
    # DuckDB refuses a parameter that the statement doesn't use.
    asked = {name: value for name, value in known.items() if f"${name}" in sql}
    found = warehouse.query(sql, asked, within=None if measure.over == "variants" else {"run_id": session["run_id"]})
    gap = found[0].pop("gap", None) if len(found) == 1 else None
    values = [value for row in found for value in row.values()]
    if len(values) != 1:
        return Reading(
            value=None, gap=f"{sql_file} answers {len(values)} values, expected one", samples=[], promql=None
        )
    if values[0] is None:
        return Reading(value=None, gap=gap or f"{sql_file} has no value for this window", samples=[], promql=None)
    return Reading(value=float(values[0]), gap=None, samples=[], promql=None)


def whole_run(warehouse: Warehouse, session_id: str, run_id: str) -> Row:
    """The time of all steps of a session, in the place of a stage."""
    [window] = warehouse.query(
        "SELECT min(started_at) AS started_at, max(ended_at) AS ended_at FROM events "
        "WHERE session_id = ? AND kind NOT IN ('cold_start', 'deploy', 'milestone')",
        [session_id],
        within={"run_id": run_id},
    )
    return {**WHOLE_RUN, **window}
