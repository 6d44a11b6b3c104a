"""load_run: walk the lab's steps on the live stack; every step becomes an event, every request a row."""

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
from assets.steps import Walk
from lab_pipelines import rows
from lab_pipelines.digest import canonical_digest
from lab_pipelines.provenance import require_same
from resources.cluster import Cluster
from resources.labs import Labs
from resources.load_generator import LoadGenerator
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse

_STAGE_COLUMNS = {
    "step": "string",
    "stage": "int",
    "profile": "string",
    "users": "int",
    "duration_s": "float",
    "requests_ok": "int",
    "output_tokens": "int",
}

_STEP_COLUMNS = {"kind": "string", "name": "string", "duration_s": "float", "outcome": "string"}


@asset(**LAB_ASSET, deps=[deployed_stack], description=__doc__)
def load_run(
    context: AssetExecutionContext,
    labs: Labs,
    cluster: Cluster,
    load_generator: LoadGenerator,
    telemetry: Telemetry,
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
        log = progress_to(context)

        def progress(line: str) -> None:
            cluster.renew(session)
            log(line)

        walk = Walk(
            spec=spec,
            variant=next(variant for variant in spec.variants if variant.id == session.variant),
            session=session,
            cluster=cluster,
            load_generator=load_generator,
            telemetry=telemetry,
            warehouse=warehouse,
            progress=progress,
            stages=[],
        )
        events = walk.all()
    return MaterializeResult(
        metadata={
            "dagster/row_count": sum(stage["requests_in_stage"] for stage in walk.stages),
            "time_scale": session.time_scale,
            "provenance": rows.common(session)["provenance"],
            "steps": MetadataValue.table(
                [TableRecord({column: event[column] for column in _STEP_COLUMNS}) for event in events],
                schema=TableSchema([TableColumn(name, kind) for name, kind in _STEP_COLUMNS.items()]),
            ),
            "stages": MetadataValue.table(
                [TableRecord({column: _cell(stage[column]) for column in _STAGE_COLUMNS}) for stage in walk.stages],
                schema=TableSchema([TableColumn(name, kind) for name, kind in _STAGE_COLUMNS.items()]),
            ),
        }
    )


def _cell(value: str | float | None) -> str | float:
    """A table's cell in the UI; an open loop has no users."""
    return "" if value is None else value
