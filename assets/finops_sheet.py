"""finops_sheet: what a token and a request cost, per stage and for each whole session; then refresh labs.duckdb."""

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_sessions, progress_to
from assets.cost_attribution import cost_attribution
from assets.cost_measures import publish_cost_measures
from lab_pipelines.dead_runs import WAREHOUSE_POOL
from lab_pipelines.report.sheet_table import sheet_markdown
from lab_pipelines.report.stage_table import stage_markdown
from lab_pipelines.session_sheets import publish_sheets
from resources.labs import Labs
from resources.warehouse import Warehouse, Within


@asset(**LAB_ASSET, deps=[cost_attribution], pool=WAREHOUSE_POOL, description=__doc__)
def finops_sheet(context: AssetExecutionContext, labs: Labs, warehouse: Warehouse) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    sessions = closed_sessions(warehouse, spec, labs.target, prefer=context.run.run_id)
    run: Within = {"run_id": sessions[0]["run_id"]}
    first = sessions[0]
    publish_sheets(warehouse, sessions, objective=spec.objective)
    sheet = warehouse.query(
        "SELECT s.* FROM sheet_current AS s JOIN stack_sessions AS held USING (session_id) WHERE held.state = 'closed' "
        "ORDER BY held.requested_at, s.session_id, s.step, s.stage",
        within=run,
    )
    publish_cost_measures(spec, sessions, warehouse)
    snapshot = warehouse.rebuild()
    progress_to(context)(f"{snapshot.name} holds the new rows")
    table = warehouse.query("SELECT * FROM stage_table ORDER BY started_at, step, stage", within=run)
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(sheet),
            "provenance": first["provenance"],
            "useful": MetadataValue.text(spec.objective.line if spec.objective else "the lab states no objective"),
            "stages": MetadataValue.md(stage_markdown(table)),
            "sheet": MetadataValue.md(sheet_markdown(sheet)),
            "warehouse": MetadataValue.path(snapshot),
        }
    )
