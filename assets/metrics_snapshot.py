"""metrics_snapshot: read the lab's measures for every stage, compare totals, judge the findings, release the stack."""

from dataclasses import dataclass
from datetime import datetime

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.budget import told_when_cut
from assets.common import LAB_ASSET, progress_to, publish
from assets.findings import judge
from assets.load_run import load_run
from assets.measures import read_sql_measure, whole_run
from assets.samples import Samples, statistics_rows
from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.rows.common import Row, common_columns
from lab_pipelines.rows.measures import (
    ALL_VARIANTS,
    WHOLE_RUN,
    counter_total_row,
    first_and_last,
    sample_rows,
    summary_row,
)
from lab_pipelines.rows.sessions import node_time_row, session_row
from resources.chart_values import drafted_tokens
from resources.cluster import Cluster, Session
from resources.labs import Labs
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse, Within

_CLIENT_TOTALS = """
    SELECT coalesce(sum(output_tokens), 0)::DOUBLE AS output_tokens,
           count(*) FILTER (outcome = 'ok')::DOUBLE AS requests_ok,
           count(*) FILTER (outcome = 'cut')::DOUBLE AS requests_cut,
           coalesce(sum(output_tokens) FILTER (outcome = 'cut'), 0)::DOUBLE AS output_tokens_cut,
           -- How fast the streams that were cut went on, all together: tokens per stack second.
           coalesce(sum(
               (len(event_offsets_s) - 1) / nullif(event_offsets_s[len(event_offsets_s)] - event_offsets_s[1], 0)
           ) FILTER (outcome = 'cut' AND len(event_offsets_s) > 1), 0)::DOUBLE AS cut_tokens_per_s,
           -- What a busy client had not read yet when the load ended: wall seconds.
           (
               SELECT coalesce(max(value), 0)::DOUBLE FROM client_errors
               WHERE session_id = $1 AND step = $2
                 AND quantity IN ('ttft_lag_p99', 'receive_lag_p99', 'event_loop_lag_p99')
           ) AS lag_wall_s
    FROM requests WHERE session_id = $1 AND step = $2
"""

_NEXT_EVENT = """
    SELECT min(later.started_at) AS began  -- of the same session: NULL after its last step
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
    with (
        told_when_cut(warehouse, target=labs.target, lab=spec.id, run_id=context.run.run_id),
        cluster.released_on_error(spec.id),
    ):
        sessions = cluster.sessions(spec.id)
        last = sessions[-1]
        shared, samples, summaries, totals = common_columns(last), list[Row](), list[Row](), list[Row]()
        ends = [*(following.requested_at for following in sessions[1:]), cluster.now()]
        for session, ended_at in zip(sessions, ends, strict=True):
            if session.refusal is not None:
                continue
            stages = warehouse.query(
                "SELECT * FROM load_stages WHERE session_id = ? ORDER BY started_at",
                [session.session_id],
                within={"run_id": session.run_id},
            )
            read = _Reader(session, telemetry, warehouse, samples, summaries)
            for measure in spec.measures:
                if measure.after == "cost" or measure.over == "variants":
                    continue
                read(
                    measure,
                    [whole_run(warehouse, session.session_id, session.run_id)] if measure.over == "run" else stages,
                )
            totals += _counter_totals(spec, session, stages, telemetry, warehouse, ended_at=ended_at)
        where = {"target": last.target, "lab": last.lab, "run_id": last.run_id}
        for table, table_rows in {
            "metric_samples": samples,
            "metric_summaries": summaries,
            "counter_totals": totals,
        }.items():
            if table_rows:
                warehouse.publish(table, table_rows, **where)
        # After the summaries are published: these, and the findings, are judged on what the warehouse holds.
        if across := _across_variants(spec, sessions, telemetry, warehouse):
            warehouse.publish("metric_summaries", across, **where, part="variants")
        walked = [session_row(one, released_at=None) for one in sessions]
        stage_samples = Samples(warehouse, spec.objective)
        statistics = [row for one in walked for row in statistics_rows(one, stage_samples.of(one))]
        if statistics:
            warehouse.publish("stage_statistics", statistics, **where)
        if findings := judge(spec, walked, warehouse, samples=stage_samples):
            warehouse.publish("findings", findings, **where)
        # Before the release, after which nobody knows any more; the last one's nodes are held until it is over.
        held = [cluster.held_nodes(session, until=end) for session, end in zip(sessions, ends, strict=True)]
        released_at = cluster.release(spec.id, run_id=last.run_id) or cluster.now()
        held[-1] = [one.held_to(released_at, asked_at=ends[-1]) for one in held[-1]]
        node_times = [node_time_row(s, one) for s, nodes in zip(sessions, held, strict=True) for one in nodes]
        warehouse.publish("node_time", node_times, **where)
        publish(warehouse, "stack_sessions", [session_row(last, released_at=released_at)], last, part="closed")
    gaps = sorted({row["measure"] for row in summaries if row["status"] == "gap"})
    progress_to(context)(f"read {len(summaries)} measures, {len(gaps)} kinds with gaps; the stack is released")
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(summaries),
            "variants": [session.visit for session in sessions],
            "gaps": MetadataValue.text(", ".join(gaps) or "none"),
            "provenance": shared["provenance"],
            "released_at": MetadataValue.timestamp(released_at),
        }
    )


@dataclass(frozen=True)
class _Reader:
    """Reads measures of one session and collects their rows."""

    session: Session
    telemetry: Telemetry
    warehouse: Warehouse
    samples: list[Row]
    summaries: list[Row]

    def __call__(self, measure: Measure, windows: list[Row]) -> None:
        session, shared = self.session, common_columns(self.session)
        for window in windows:
            if measure.sql is not None:
                reading = read_sql_measure(self.warehouse, measure, session=shared, stage=window)
            else:
                reading = self.telemetry.read(
                    session.prometheus_url,
                    measure,
                    selector=session.metric_selector,
                    start=window["started_at"],
                    end=window["ended_at"],
                    step_s=min(1.0, 2.0 / session.time_scale),
                    time_scale=session.time_scale,
                )
            self.samples.extend(sample_rows(shared, window, measure, reading))
            self.summaries.append(summary_row(shared, window, measure, reading))


def _across_variants(spec: LabSpec, sessions: list[Session], telemetry: Telemetry, warehouse: Warehouse) -> list[Row]:
    """`metric_summaries` of the measures that compare variants; they are told with the last variant's session."""
    last = sessions[-1]
    summaries = list[Row]()
    read = _Reader(last, telemetry, warehouse, [], summaries)
    window = {**WHOLE_RUN, "started_at": sessions[0].requested_at, "ended_at": last.ready_at}
    for measure in spec.measures:
        if measure.over == "variants" and measure.after == "load":
            read(measure, [window])
    return [{**row, "variant": ALL_VARIANTS} for row in summaries]


def _counter_totals(
    spec: LabSpec,
    session: Session,
    stages: list[Row],
    telemetry: Telemetry,
    warehouse: Warehouse,
    *,
    ended_at: datetime,
) -> list[Row]:
    totals = []
    run: Within = {"run_id": session.run_id}
    for step in spec.load_steps:
        start, _ = first_and_last([stage for stage in stages if stage["step"] == step.name])
        client = warehouse.query(_CLIENT_TOTALS, [session.session_id, step.name], within=run)[0]
        [after] = warehouse.query(_NEXT_EVENT, [session.session_id, step.name], within=run)
        for total in spec.error_budget.totals:
            if total.component != step.component:
                continue
            server = telemetry.increase(
                session.prometheus_url,
                total.counter,
                selector=session.metric_selector,
                start=start,
                # What a later step adds to the counter, or resets of it, is not this step's.
                end=after["began"] or ended_at,
            )
            totals.append(
                counter_total_row(
                    session,
                    step.name,
                    total.client,
                    total.counter,
                    client=client[total.client],
                    unknown=_unknown(total.client, client, session),
                    server=server,
                )
            )
    return totals


def _unknown(total: str, client: Row, session: Session) -> float:
    """How much more than its own count the client may have been served without knowing."""
    if total == "requests_ok":
        # Streams run in phase: when the load ends, several answers may be complete but not yet read.
        return client["requests_cut"]
    # A stream that was cut has no usage, so that its tokens are counted by events; an accepted draft shares one.
    drafted = client["output_tokens_cut"] * drafted_tokens(session.engine_args)
    unread_wall_s = session.cut_noticed_s + client["lag_wall_s"]
    return drafted + client["cut_tokens_per_s"] * session.time_scale * unread_wall_s
