"""load_run: apply the lab's load steps to the live stack; every request becomes a row."""

from dagster import (
    AssetExecutionContext,
    MaterializeResult,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset,
)

from assets.common import LAB_ASSET, progress_to
from assets.deployed_stack import deployed_stack
from lab_pipelines import rows
from lab_pipelines.digest import canonical_digest
from lab_pipelines.provenance import require_same
from resources.cluster import Cluster
from resources.labs import Labs
from resources.load_generator import LoadGenerator
from resources.warehouse import Warehouse

_STAGE_COLUMNS = {
    "step": "string",
    "stage": "int",
    "users": "int",
    "duration_s": "float",
    "requests_ok": "int",
    "output_tokens": "int",
}


@asset(**LAB_ASSET, deps=[deployed_stack], description=__doc__)
def load_run(
    context: AssetExecutionContext,
    labs: Labs,
    cluster: Cluster,
    load_generator: LoadGenerator,
    warehouse: Warehouse,
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    with cluster.released_on_error(spec.id):
        session = cluster.attach(spec.id)
        require_same(
            session.model_dump(),
            {"spec_digest": canonical_digest(spec.model_dump(mode="json"))},
            what=f"the stack of {spec.id} that is up",
        )
        pace = spec.paces[session.pace]
        log = progress_to(context)

        def progress(line: str) -> None:
            cluster.renew(session)
            log(line)

        stages = []
        where = {"target": session.target, "lab": session.lab, "run_id": session.run_id}
        for step in spec.steps:
            plan = rows.load_plan(session, step, pace)
            result = load_generator.run(
                plan,
                workdir=cluster.run_folder(session.run_id, spec.id) / step.name,
                environ=cluster.marker(spec.id),
                progress=progress,
            )
            # One file per step, so a step that is done stays done whatever happens to the next.
            warehouse.publish("requests", rows.request_rows(session, plan, result), **where, part=step.name)
            step_stages = rows.stage_rows(session, plan, pace, result)
            warehouse.publish("load_stages", step_stages, **where, part=step.name)
            stages += step_stages
    return MaterializeResult(
        metadata={
            "dagster/row_count": sum(stage["requests_in_stage"] for stage in stages),
            "time_scale": session.time_scale,
            "provenance": rows.common(session)["provenance"],
            "stages": MetadataValue.table(
                [TableRecord({column: stage[column] for column in _STAGE_COLUMNS}) for stage in stages],
                schema=TableSchema([TableColumn(name, kind) for name, kind in _STAGE_COLUMNS.items()]),
            ),
        }
    )
