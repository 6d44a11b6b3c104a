"""The FinOps sheet of sessions in one state of their costs, from the warehouse and back into it.

Belongs here: which rows a sheet is made of, and publishing it. Used by the asset for the estimate, and by whoever
changes costs later (a bill, another estimate). Doesn't belong here: the arithmetic (finops.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.slo import Slo
from lab_pipelines.finops import Configuration, StageWork, UsefulWork, sheet_rows
from lab_pipelines.finops_split import TimedRequest, phase_times
from lab_pipelines.rows.common import Row, common_columns_of

if TYPE_CHECKING:
    from resources.lake import Within
    from resources.warehouse_core import WarehouseCore

State = Literal["estimated", "billed"]

_STALE = Path(__file__).parent / "session_sheets_stale.sql"
_WORK = Path(__file__).parent / "session_work.sql"
_REQUESTS = Path(__file__).parent / "session_requests.sql"


def session_sheet(
    warehouse: WarehouseCore, session: Mapping[str, Any], *, state: State, objective: Slo | None
) -> list[Row]:
    """Rows of `finops_sheet` of one session, from its newest `cost_records` of `state`. Nothing is published.

    `session` is its closed row of `stack_sessions`. No rows where its bill has not come. Raises `CostError`
    where costs contradict each other.
    """
    run: Within = {"run_id": session["run_id"]}
    costs = warehouse.query(
        "SELECT * FROM cost_current WHERE session_id = ? AND x_state = ?", [session["session_id"], state], within=run
    )
    if not costs and state == "billed":
        return []
    return sheet_rows(
        costs,
        _work(warehouse, session, objective),
        shared=common_columns_of(session),
        configuration=Configuration(
            sku=session["sku"],
            nodes=session["nodes"],
            gpus_per_node=gpus_of(session["sku"]),
            model=session["model"],
            values_digest=session["values_digest"],
            slo=objective,
        ),
    )


def publish_sheets(warehouse: WarehouseCore, sessions: Sequence[Mapping[str, Any]], *, objective: Slo | None) -> None:
    """Publish the estimate's sheets of the closed `sessions` of one run; those that have some are brought up to date.

    A sheet keeps the objective that it was first made with. Raises `CostError`, and `WarehouseError` as
    `Warehouse.publish` does.
    """
    run = {name: sessions[0][name] for name in ("target", "lab", "run_id")}
    within: Within = {"run_id": run["run_id"]}
    made = {row["session_id"] for row in warehouse.query("SELECT DISTINCT session_id FROM finops_sheet", within=within)}
    new: list[Row] = []
    for session in sessions:
        if session["session_id"] not in made:
            new += session_sheet(warehouse, session, state="estimated", objective=objective)
    if new:
        part = _part("estimated", datetime.now(UTC)) if made else None
        warehouse.publish("finops_sheet", new, **run, part=part)
    if made:
        bring_up_to_date(warehouse, target=run["target"], lab=run["lab"], now=datetime.now(UTC))


def publish_anew(
    warehouse: WarehouseCore, sessions: Sequence[Mapping[str, Any]], *, state: State, part: str
) -> list[Row]:
    """Publish the sheets of closed `sessions` of one run anew, of newer costs: a bill, or another split; the rows.

    The objective is the one that the estimate's first sheet was made with, so that all tell of the same requests.
    `part` tells this file from others of the run. Sessions without costs in that state, or without an estimate's sheet,
    are left out. Raises `CostError`, and `WarehouseError` as `Warehouse.publish` does.
    """
    rows: list[Row] = []
    for session in sessions:
        used = warehouse.query(
            "SELECT slo_ttft_s AS ttft_s, slo_tpot_s AS tpot_s, slo_e2e_s AS e2e_s FROM finops_sheet "
            "WHERE session_id = ? AND state IS DISTINCT FROM 'billed' AND stage IS NULL ORDER BY recorded_at",
            [session["session_id"]],
            within={"run_id": session["run_id"]},
        )
        if used:
            bounds = used[0]
            objective = Slo(**bounds) if any(bound is not None for bound in bounds.values()) else None
            rows += session_sheet(warehouse, session, state=state, objective=objective)
    if rows:
        where = {name: rows[0][name] for name in ("target", "lab", "run_id")}
        warehouse.publish("finops_sheet", rows, **where, part=part)
    return rows


def bring_up_to_date(warehouse: WarehouseCore, *, target: str, lab: str | None = None, now: datetime) -> int:
    """Write the sheet of every session whose costs are newer than it or others: a bill came, or another estimate.

    Of one lab or of all; how many sheets were written. Whoever was killed between costs and sheets is made good by the
    next call. `now` names the files. Raises as `publish_anew`.
    """
    within: Within = {"target": target, "lab": lab} if lab else {"target": target}
    stale = warehouse.query(_STALE.read_text(encoding="utf-8"), {"target": target, "lab": lab}, within=within)
    for (state, _, _), group in groupby(stale, key=itemgetter("costs_state", "lab", "run_id")):
        publish_anew(warehouse, list(group), state=state, part=_part(state, now))
    return len(stale)


def gpus_of(sku: str | None) -> int | None:
    """How many GPUs a node of the machine type has, whether a lab uses them or not; None for one that isn't known."""
    known = load_prices().skus.get(sku or "")
    return known.gpus if known else None


def _part(state: State, now: datetime) -> str:
    return f"{state}-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def _work(warehouse: WarehouseCore, session: Mapping[str, Any], objective: Slo | None) -> list[StageWork]:
    run: Within = {"run_id": session["run_id"]}
    name = {"session_id": session["session_id"]}
    bounds = objective.model_dump() if objective else dict.fromkeys(Slo.model_fields)
    stages = warehouse.query(_WORK.read_text(encoding="utf-8"), {**name, **bounds}, within=run)
    requests = warehouse.query(_REQUESTS.read_text(encoding="utf-8"), name, within=run)
    phases = phase_times(
        [(stage["started_us"], stage["ended_us"]) for stage in stages], [TimedRequest.from_row(r) for r in requests]
    )
    return [
        StageWork(
            step=stage["step"],
            stage=stage["stage"],
            users=stage["users"],
            requests=stage["requests"],
            input_tokens=stage["input_tokens"],
            output_tokens=stage["output_tokens"],
            useful=UsefulWork(stage["useful_requests"], stage["useful_input_tokens"], stage["useful_output_tokens"])
            if objective and stage["useful_requests"] is not None
            else None,
            phases=of_stage,
            profile=stage["profile"],
            offered_per_s=stage["offered_per_s"],
        )
        for stage, of_stage in zip(stages, phases, strict=True)
    ]
