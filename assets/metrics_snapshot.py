"""metrics_snapshot: read the lab's measures for every stage, compare totals, judge the findings, release the stack."""

from datetime import UTC, datetime

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, progress_to
from assets.findings import judge
from assets.load_run import load_run
from assets.measures import read_sql_measure
from lab_pipelines import rows
from lab_pipelines.catalog.spec import LabSpec
from resources.cluster import Cluster, Session
from resources.labs import Labs
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse

_CLIENT_TOTALS = """
    SELECT coalesce(sum(output_tokens), 0)::DOUBLE AS output_tokens,
           count(*) FILTER (outcome = 'ok')::DOUBLE AS requests_ok,
           count(*) FILTER (outcome = 'cut')::DOUBLE AS requests_cut
    FROM requests WHERE session_id = ? AND step = ?
"""

_NEXT_EVENT = """
    SELECT min(later.started_at) AS began
    FROM events load JOIN events later ON later.session_id = load.session_id AND later.started_at >= load.ended_at
    WHERE load.session_id = ? AND load.name = ? AND load.kind = 'load'
"""


@asset(**LAB_ASSET, deps=[load_run], description=__doc__)
def metrics_snapshot(
    context: AssetExecutionContext,
    labs: Labs,
    cluster: Cluster,
    telemetry: Telemetry,
    warehouse: Warehouse,
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    with cluster.released_on_error(spec.id):
        session = cluster.attach(spec.id)
        where = {"target": session.target, "lab": session.lab, "run_id": session.run_id}
        stages = warehouse.query(
            "SELECT * FROM load_stages WHERE session_id = ? ORDER BY started_at", [session.session_id]
        )
        run = _whole_run(session, warehouse)
        shared, samples, summaries = rows.common(session), [], []
        for measure in spec.measures:
            for stage in [run] if measure.over == "run" else stages:
                if measure.sql is not None:
                    reading = read_sql_measure(warehouse, measure.sql, session_id=session.session_id, stage=stage)
                else:
                    reading = telemetry.read(
                        session.prometheus_url,
                        measure,
                        selector=session.metric_selector,
                        start=stage["started_at"],
                        end=stage["ended_at"],
                        step_s=min(1.0, 2.0 / session.time_scale),
                        time_scale=session.time_scale,
                    )
                samples += rows.sample_rows(shared, stage, measure, reading)
                summaries.append(rows.summary_row(shared, stage, measure, reading))
        totals = _counter_totals(spec, session, stages, telemetry, warehouse)
        for table, table_rows in {
            "metric_samples": samples,
            "metric_summaries": summaries,
            "counter_totals": totals,
        }.items():
            if table_rows:
                warehouse.publish(table, table_rows, **where)
        # After the summaries are published: a finding is judged on what the warehouse holds.
        if findings := judge(spec, session, warehouse):
            warehouse.publish("findings", findings, **where)
        released_at = cluster.release(spec.id) or datetime.now(UTC)
        warehouse.publish(
            "stack_sessions", [rows.session_row(session, released_at=released_at)], **where, part="closed"
        )
    gaps = sorted({row["measure"] for row in summaries if row["status"] == "gap"})
    progress_to(context)(f"read {len(summaries)} measures, {len(gaps)} kinds with gaps; the stack is released")
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(summaries),
            "gaps": MetadataValue.text(", ".join(gaps) or "none"),
            "provenance": shared["provenance"],
            "released_at": MetadataValue.timestamp(released_at),
        }
    )


def _whole_run(session: Session, warehouse: Warehouse) -> rows.Row:
    """The time of all steps, in the place of a stage."""
    [window] = warehouse.query(
        "SELECT min(started_at) AS started_at, max(ended_at) AS ended_at FROM events "
        "WHERE session_id = ? AND kind <> 'cold_start'",
        [session.session_id],
    )
    return {**rows.WHOLE_RUN, **window}


def _counter_totals(
    spec: LabSpec, session: Session, stages: list[rows.Row], telemetry: Telemetry, warehouse: Warehouse
) -> list[rows.Row]:
    totals = []
    for step in spec.load_steps:
        start, _ = rows.first_and_last([stage for stage in stages if stage["step"] == step.name])
        client = warehouse.query(_CLIENT_TOTALS, [session.session_id, step.name])[0]
        [after] = warehouse.query(_NEXT_EVENT, [session.session_id, step.name])
        for total in spec.error_budget.totals:
            if total.component != step.component:
                continue
            server = telemetry.increase(
                session.prometheus_url,
                total.counter,
                selector=session.metric_selector,
                start=start,
                # What a later step adds to the counter, or resets of it, is not this step's.
                end=after["began"] or datetime.now(UTC),
            )
            totals.append(
                rows.counter_total_row(
                    session,
                    step.name,
                    total.client,
                    total.counter,
                    client=client[total.client],
                    # Streams run in phase: when the load ends, several answers may be complete but not yet read.
                    unknown=client["requests_cut"] if total.client == "requests_ok" else 0.0,
                    server=server,
                )
            )
    return totals
