"""deployed_stack: bring the lab's first variant up under a lease and record how long every phase took."""

from datetime import timedelta

from dagster import AssetExecutionContext, Config, MaterializeResult, MetadataValue, asset
from pydantic import Field

from assets.budget import require_budget_left, require_within_budget, told_when_cut
from assets.common import LAB_ASSET, progress_to
from assets.variants import publish_opening
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.status import labs_markdown
from lab_pipelines.dead_runs import settle_dead_runs
from lab_pipelines.rows.common import common_columns
from resources.billing import Billing
from resources.budget_guard import BudgetGuard
from resources.cluster import Cluster, StackOrder
from resources.labs import Labs
from resources.node_pools import NodePools
from resources.spending import Place
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
    node_pools: NodePools,
    billing: Billing,
    budget_guard: BudgetGuard,
    warehouse: Warehouse,
) -> MaterializeResult:
    for run_id in settle_dead_runs(context.instance):
        context.log.warning(f"run {run_id} was killed; it is marked as failed, and no pool waits for it any more")
    spec = labs.spec(context.partition_key)
    variants, visits = labs.chosen_variants(spec), labs.visits(spec)
    pace_name, pace = labs.pace_of(spec)
    labs.require_loads(spec)
    require_within_budget(labs, spec, visits, pace=pace_name, region=billing.region, sheet=billing.sheet())
    # Nothing is rented whose price can't be looked up, or is too old: its cost would fail after the load.
    for variant in variants:
        billing.node_hour_price(cluster.priced_sku(spec, variant), spec.nodes_of(variant).priority)
    place = Place(labs.target, cluster, node_pools, billing, warehouse)
    log = progress_to(context)
    require_budget_left(budget_guard, place, spec, variants, run_id=context.run.run_id, progress=log)
    order = StackOrder(
        spec=spec,
        variant=variants[0],
        run_id=context.run.run_id,
        pace_name=pace_name,
        pace=pace,
        hold=timedelta(minutes=config.hold_minutes) if config.hold_minutes else None,
    )
    with told_when_cut(warehouse, target=labs.target, lab=spec.id, run_id=context.run.run_id):
        session = cluster.deploy(order, progress=log)
        with cluster.released_on_error(spec.id):
            publish_opening(warehouse, session, variants[0])
    return MaterializeResult(
        metadata={
            "engine": session.engine,
            "model": session.model or "none",
            "endpoints": MetadataValue.json({e.component: e.base_url for e in session.endpoints if e.base_url}),
            "prometheus_url": session.prometheus_url,
            "provenance": common_columns(session)["provenance"],
            "model_range": session.model_range or "nothing is modelled",
            "variants": [variant.id for variant in variants],
            "turns": max(visit.trial for visit in visits),
            "time_scale": session.time_scale,
            "cold_start_s": sum(phase.duration_s for phase in session.phases),
            "engine_args": " ".join(session.engine_args),
        }
    )
