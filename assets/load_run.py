"""load_run: walk the lab's steps in every variant, turn by turn; every step becomes an event, every request a row."""

from dagster import (
    AssetExecutionContext,
    Failure,
    MaterializeResult,
    asset,
)

from assets.budget import told_when_cut
from assets.common import LAB_ASSET, progress_to, shown_table
from assets.deployed_stack import deployed_stack
from assets.steps import Walk
from assets.variants import switch
from lab_pipelines.dead_runs import GPU_POOL
from lab_pipelines.provenance import require_same
from lab_pipelines.rows.common import Row, common_columns
from lab_pipelines.turns import Visit
from resources.billing import Billing
from resources.cluster import Cluster, Session
from resources.labs import Labs
from resources.load_generator import LoadGenerator
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse

_STAGE_COLUMNS = {
    "variant": "string",
    "trial": "int",
    "step": "string",
    "stage": "int",
    "profile": "string",
    "users": "int",
    "duration_s": "float",
    "requests_ok": "int",
    "output_tokens": "int",
}

_STEP_COLUMNS = {
    "variant": "string",
    "trial": "int",
    "kind": "string",
    "name": "string",
    "duration_s": "float",
    "outcome": "string",
}


@asset(**LAB_ASSET, deps=[deployed_stack], pool=GPU_POOL, description=__doc__)
def load_run(
    context: AssetExecutionContext,
    labs: Labs,
    cluster: Cluster,
    load_generator: LoadGenerator,
    telemetry: Telemetry,
    billing: Billing,
    warehouse: Warehouse,
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    with (
        told_when_cut(warehouse, target=labs.target, lab=spec.id, run_id=context.run.run_id),
        cluster.released_on_error(spec.id),
    ):
        session = cluster.attach(spec.id)
        require_same(
            session.model_dump(),
            {"spec_digest": spec.digest},
            what=f"the stack of {spec.id} that is up",
        )
        log = progress_to(context)

        def progress(line: str) -> None:
            cluster.renew(session)
            log(line)

        stages, events = list[Row](), list[Row]()
        for number, visit in enumerate(_from(session, labs.visits(spec))):
            if number:
                session = switch(session, spec, visit, cluster=cluster, warehouse=warehouse, progress=log)
            if session.refusal is not None:
                continue
            walk = Walk(
                spec=spec,
                variant=visit.variant,
                session=session,
                cluster=cluster,
                load_generator=load_generator,
                telemetry=telemetry,
                billing=billing,
                warehouse=warehouse,
                progress=progress,
                stages=stages,
            )
            events += walk.all()
    return MaterializeResult(
        metadata={
            "dagster/row_count": sum(stage["requests_in_stage"] for stage in stages),
            "time_scale": session.time_scale,
            "provenance": common_columns(session)["provenance"],
            "steps": shown_table(_STEP_COLUMNS, events),
            "stages": shown_table(_STAGE_COLUMNS, stages),
        }
    )


def _from(session: Session, visits: list[Visit]) -> list[Visit]:
    """The visits from the one whose stack is up on."""
    names = [visit.name for visit in visits]
    if session.visit not in names:
        raise Failure(
            f"the stack that is up is variant {session.visit}, which is not among the chosen: {', '.join(names)}",
            allow_retries=False,
        )
    return visits[names.index(session.visit) :]
