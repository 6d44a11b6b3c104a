"""finops_sheet: what a token and a request cost, per stage and for each whole session; then refresh labs.duckdb."""

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_sessions, progress_to
from assets.cost_attribution import cost_attribution
from assets.cost_measures import publish_cost_measures
from lab_pipelines import rows
from lab_pipelines.dead_runs import WAREHOUSE_POOL
from lab_pipelines.finops import StageWork, sheet_rows
from lab_pipelines.report.stage_table import stage_markdown
from resources.labs import Labs
from resources.warehouse import Warehouse, Within

# Tokens of a stage are those that passed in its window, whichever request they belong to: output tokens as they
# arrived, and a prompt's tokens when its first output token did.
_WORK = """
    SELECT s.step, s.stage, s.users, s.requests_ok AS requests, s.output_tokens,
           coalesce(sum(coalesce(r.input_tokens, r.expected_input_tokens)), 0)::BIGINT AS input_tokens
    FROM load_stages s
    LEFT JOIN requests r
      ON r.session_id = s.session_id AND r.step = s.step
     AND r.scheduled_at + to_microseconds((1e6 * r.ttft_s / r.time_scale)::BIGINT) >= s.started_at
     AND r.scheduled_at + to_microseconds((1e6 * r.ttft_s / r.time_scale)::BIGINT) < s.ended_at
    WHERE s.session_id = ?
    GROUP BY ALL ORDER BY s.step, s.stage
"""


@asset(**LAB_ASSET, deps=[cost_attribution], pool=WAREHOUSE_POOL, description=__doc__)
def finops_sheet(context: AssetExecutionContext, labs: Labs, warehouse: Warehouse) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    sessions = closed_sessions(warehouse, spec, labs.target, prefer=context.run.run_id)
    run: Within = {"run_id": sessions[0]["run_id"]}
    sheet = list[rows.Row]()
    for session in sessions:
        costs = warehouse.query(
            "SELECT * FROM cost_records WHERE session_id = ? AND x_state = 'estimated'",
            [session["session_id"]],
            within=run,
        )
        work = [StageWork(**row) for row in warehouse.query(_WORK, [session["session_id"]], within=run)]
        sheet += sheet_rows(costs, work, shared=rows.common_of(session), sku=session["sku"])
    first = sessions[0]
    warehouse.publish("finops_sheet", sheet, target=first["target"], lab=first["lab"], run_id=first["run_id"])
    publish_cost_measures(spec, sessions, warehouse)
    snapshot = warehouse.rebuild()
    progress_to(context)(f"{snapshot.name} holds the new rows")
    table = warehouse.query("SELECT * FROM stage_table ORDER BY started_at, step, stage", within=run)
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(sheet),
            "provenance": first["provenance"],
            "stages": MetadataValue.md(stage_markdown(table)),
            "warehouse": MetadataValue.path(snapshot),
        }
    )
