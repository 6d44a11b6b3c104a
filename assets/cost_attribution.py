"""cost_attribution: split the released session's node time into serve, idle, cold start and failed, and price it."""

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_session, progress_to
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines import rows
from lab_pipelines.cost import PARTS, ClosedSession, RequestInterval, StageWindow, cost_rows, split_session
from resources.billing import Billing
from resources.labs import Labs
from resources.warehouse import Warehouse


@asset(**LAB_ASSET, deps=[metrics_snapshot], description=__doc__)
def cost_attribution(
    context: AssetExecutionContext, labs: Labs, billing: Billing, warehouse: Warehouse
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    session = closed_session(warehouse, spec, labs.target, prefer=context.run_id)
    stages = warehouse.query(
        "SELECT step, stage, started_at, ended_at FROM load_stages WHERE session_id = ?", [session["session_id"]]
    )
    requests = warehouse.query(
        "SELECT sent_at, finished_at, outcome FROM requests WHERE session_id = ?", [session["session_id"]]
    )
    price = billing.node_hour_price(session["sku"])
    usd_per_node_hour = price.usd if price else None
    parts = split_session(
        ClosedSession.from_row(session),
        [StageWindow(**stage) for stage in stages],
        [RequestInterval(**request) for request in requests],
        usd_per_node_hour=usd_per_node_hour,
    )
    warehouse.publish(
        "cost_records",
        cost_rows(
            parts,
            shared=rows.common_of(session),
            sku=session["sku"],
            region=price.region if price else None,
            usd_per_node_hour=usd_per_node_hour,
            price_source=price.source if price else None,
        ),
        target=session["target"],
        lab=session["lab"],
        run_id=session["run_id"],
        part="estimated",
    )
    usd = {name: sum(p.usd for p in parts if p.part == name and p.usd is not None) for name in PARTS}
    total = f"{sum(usd.values()):.4f} USD" if price else "unknown: no price is known for this machine"
    progress_to(context)(f"cost of the session: {total}")
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(parts),
            "total": MetadataValue.text(total),
            "provenance": session["provenance"],
            **({f"{name}_usd": float(amount) for name, amount in usd.items()} if price else {}),
        }
    )
