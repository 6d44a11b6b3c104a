"""Measures and findings that need the run's own cost: asked and judged when its cost is attributed.

Belongs here: `after: cost` of a spec's measures, and the findings on them. Doesn't belong here: what is known while the
stack is up (metrics_snapshot.py), or a stage's cost per token (finops_sheet.py).

The stack is gone by then. What a session was is its row of `stack_sessions`, and the numbers join those of
`metrics_snapshot` in `metric_summaries` and `findings`, in files of their own. They are told once: whoever makes the
sheet of a run again, when the bill is there or other labs have run, finds them as they were. Views say what holds now.
"""

from __future__ import annotations

from collections.abc import Sequence

from assets.findings import judge
from assets.measures import read_sql_measure, whole_run
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.rows.common import Row, common_columns_of
from lab_pipelines.rows.measures import ALL_VARIANTS, WHOLE_RUN, summary_row
from resources.warehouse import Warehouse

PART = "cost"
"""What tells these files from those of metrics_snapshot."""


def publish_cost_measures(spec: LabSpec, sessions: Sequence[Row], warehouse: Warehouse) -> None:
    """Publish what the spec asks `after: cost`, unless that was done.

    `sessions` are the run's closed ones, in the order of its variants.
    """
    first = sessions[0]
    where = {"target": first["target"], "lab": first["lab"], "run_id": first["run_id"]}
    measures = {measure.name for measure in spec.measures if measure.after == "cost"}
    if measures - _known(warehouse, "SELECT DISTINCT measure AS name FROM metric_summaries", first):
        warehouse.publish("metric_summaries", _summaries(spec, sessions, warehouse), **where, part=PART)
    findings = {finding.id for finding in spec.findings if spec.is_judged_after_cost(finding)}
    if findings - _known(warehouse, "SELECT finding AS name FROM findings", first):
        warehouse.publish("findings", judge(spec, sessions, warehouse, after_cost=True), **where, part=PART)


def _known(warehouse: Warehouse, sql: str, session: Row) -> set[str]:
    return {row["name"] for row in warehouse.query(sql, within={"run_id": session["run_id"]})}


def _summaries(spec: LabSpec, sessions: Sequence[Row], warehouse: Warehouse) -> list[Row]:
    asked = [measure for measure in spec.measures if measure.after == "cost"]
    last = sessions[-1]
    summaries = list[Row]()
    for session in sessions:
        if session["refusal"] is not None:
            continue
        stages = warehouse.query(
            "SELECT * FROM load_stages WHERE session_id = ? ORDER BY started_at",
            [session["session_id"]],
            within={"run_id": session["run_id"]},
        )
        whole = whole_run(warehouse, session["session_id"], session["run_id"])
        for measure in asked:
            if measure.over == "variants":
                continue
            for window in [whole] if measure.over == "run" else stages:
                reading = read_sql_measure(warehouse, measure, session=session, stage=window)
                summaries.append(summary_row(common_columns_of(session), window, measure, reading))
    across = {**WHOLE_RUN, "started_at": sessions[0]["requested_at"], "ended_at": last["released_at"]}
    for measure in asked:
        if measure.over == "variants":
            reading = read_sql_measure(warehouse, measure, session=last, stage=across)
            row = summary_row(common_columns_of(last), across, measure, reading)
            summaries.append({**row, "variant": ALL_VARIANTS})
    return summaries
