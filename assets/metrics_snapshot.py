"""metrics_snapshot: read the lab's measures for every stage, compare totals, judge the findings, release the stack."""

from datetime import UTC, datetime

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, progress_to
from assets.findings import judge
from assets.load_run import load_run
from lab_pipelines import rows
from lab_pipelines.catalog.spec import LabSpec
from resources.cluster import Cluster, Session
from resources.labs import Labs
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse

LAST_SCRAPE_TIMEOUT_S = 75.0
"""Ours scrapes several times a second; somebody else's Prometheus may do so once a minute."""

_CLIENT_TOTALS = """
    SELECT coalesce(sum(output_tokens), 0)::DOUBLE AS output_tokens,
           count(*) FILTER (outcome = 'ok')::DOUBLE AS requests_ok,
           count(*) FILTER (outcome = 'cut')::DOUBLE AS requests_cut
    FROM requests WHERE session_id = ? AND step = ?
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
            "SELECT * FROM load_stages WHERE session_id = ? ORDER BY step, stage", [session.session_id]
        )
        loaded_until = datetime.now(UTC)
        if not telemetry.wait_for_scrape(
            session.prometheus_url,
            selector=session.metric_selector,
            after=loaded_until,
            timeout_s=LAST_SCRAPE_TIMEOUT_S,
        ):
            context.log.warning(
                f"Prometheus did not scrape every target within {LAST_SCRAPE_TIMEOUT_S:.0f} s of the load's end; "
                "series may be gaps"
            )
        shared, samples, summaries = rows.common(session), [], []
        for stage in stages:
            for measure in spec.measures:
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
            "findings": judge(spec, session, warehouse),
        }.items():
            if table_rows:
                warehouse.publish(table, table_rows, **where)
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


def _counter_totals(
    spec: LabSpec, session: Session, stages: list[rows.Row], telemetry: Telemetry, warehouse: Warehouse
) -> list[rows.Row]:
    totals = []
    for step in sorted({stage["step"] for stage in stages}):
        start, _ = rows.first_and_last([stage for stage in stages if stage["step"] == step])
        client = warehouse.query(_CLIENT_TOTALS, [session.session_id, step])[0]
        for total in spec.error_budget.totals:
            server = telemetry.increase(
                session.prometheus_url,
                total.counter,
                selector=session.metric_selector,
                start=start,
                end=datetime.now(UTC),
            )
            totals.append(
                rows.counter_total_row(
                    session,
                    step,
                    total.client,
                    total.counter,
                    client=client[total.client],
                    # Streams run in phase: when the load ends, several answers may be complete but not yet read.
                    unknown=client["requests_cut"] if total.client == "requests_ok" else 0.0,
                    server=server,
                )
            )
    return totals
