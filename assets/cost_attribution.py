"""cost_attribution: split the run's node time into serve, idle, cold start and failed, by variant, and price it."""

from decimal import Decimal

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_sessions, progress_to
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines.attribution import attribute, estimate_rows
from lab_pipelines.cost import PARTS
from resources.billing import Billing
from resources.labs import Labs
from resources.warehouse import Warehouse


@asset(**LAB_ASSET, deps=[metrics_snapshot], description=__doc__)
def cost_attribution(
    context: AssetExecutionContext, labs: Labs, billing: Billing, warehouse: Warehouse
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    first = closed_sessions(warehouse, spec, labs.target, prefer=context.run.run_id)[0]
    where = {"target": first["target"], "lab": first["lab"], "run_id": first["run_id"]}
    price_of = billing.node_hour_price
    sessions = attribute(warehouse, first["lab"], first["target"], price_of=price_of, run_id=first["run_id"])
    records = [row for one in sessions for row in estimate_rows(one, price_of=price_of)]
    warehouse.publish("cost_records", records, **where, part="estimated")
    usd = dict.fromkeys(PARTS, Decimal())
    for row in records:
        usd[row["x_part"]] += row["ListCost"] or 0
    priced = all(one.usd() is not None for one in sessions)
    total = f"{sum(usd.values()):.4f} USD" if priced else "unknown: no price is known for this machine"
    progress_to(context)(f"cost of the run: {total}")
    return MaterializeResult(
        metadata={
            "dagster/row_count": len(records),
            "total": MetadataValue.text(total),
            "provenance": first["provenance"],
            **({f"{name}_usd": float(amount) for name, amount in usd.items()} if priced else {}),
        }
    )
