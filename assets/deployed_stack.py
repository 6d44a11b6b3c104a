"""deployed_stack: bring the lab's first variant up under a lease and record how long every phase took."""

from datetime import timedelta

from dagster import AssetExecutionContext, Config, MaterializeResult, MetadataValue, asset
from pydantic import Field

from assets.budget import require_within_budget
from assets.common import LAB_ASSET, progress_to
from assets.variants import publish_opening
from lab_pipelines import rows
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.status import labs_markdown
from lab_pipelines.dead_runs import settle_dead_runs
from resources.billing import Billing
from resources.cluster import Cluster, StackOrder
from resources.labs import Labs
from resources.warehouse import Warehouse


class DeployedStackConfig(Config):
    hold_minutes: int | None = Field(
        default=None,
        description="Keep the stack up after this run, for at most so many minutes, so that load_run can be "
        "materialized by a later run. Unset: the stack goes when this run ends.",
    )


@asset(
    **LAB_ASSET,
    description=__doc__,
    metadata={"labs": MetadataValue.md(labs_markdown(load_catalog()))},
)
def deployed_stack(
    context: AssetExecutionContext,
    config: DeployedStackConfig,
    labs: Labs,
    cluster: Cluster,
    billing: Billing,
    warehouse: Warehouse,
) -> MaterializeResult:
    for run_id in settle_dead_runs(context.instance):
        context.log.warning(f"run {run_id} was killed; it is marked as failed, and no pool waits for it any more")
    spec = labs.spec(context.partition_key)
    variants = labs.chosen_variants(spec)
    pace_name, pace = labs.pace_of(spec)
    require_within_budget(labs, spec, variants, pace=pace_name, region=billing.region)
    order = StackOrder(
        spec=spec,
        variant=variants[0],
        run_id=context.run.run_id,
        pace_name=pace_name,
        pace=pace,
        hold=timedelta(minutes=config.hold_minutes) if config.hold_minutes else None,
    )
    session = cluster.deploy(order, progress=progress_to(context))
    with cluster.released_on_error(spec.id):
        # A stack whose price can't be looked up is not worth starting: its cost would fail after the load.
        billing.node_hour_price(session.sku, session.priority)
        publish_opening(warehouse, session, variants[0])
    return MaterializeResult(
        metadata={
            "engine": session.engine,
            "model": session.model or "none",
            "endpoints": MetadataValue.json({e.component: e.base_url for e in session.endpoints if e.base_url}),
            "prometheus_url": session.prometheus_url,
            "provenance": rows.common(session)["provenance"],
            "model_range": session.model_range or "nothing is modelled",
            "variants": [variant.id for variant in variants],
            "time_scale": session.time_scale,
            "cold_start_s": sum(phase.duration_s for phase in session.phases),
            "engine_args": " ".join(session.engine_args),
        }
    )
