"""cost_attribution: split the run's node time into serve, idle, cold start and failed, by variant, and price it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_sessions, progress_to
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines.attribution import (
    UnitPriceOf,
    attribute,
    estimate_rows,
    publish_changed,
    reattribute_neighbours,
)
from lab_pipelines.cost import PARTS
from lab_pipelines.rows.common import Row
from resources.billing import Billing
from resources.labs import Labs
from resources.warehouse import Warehouse
from resources.warehouse_core import WarehouseCore


@asset(**LAB_ASSET, deps=[metrics_snapshot], description=__doc__)
def cost_attribution(
    context: AssetExecutionContext, labs: Labs, billing: Billing, warehouse: Warehouse
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    sessions = closed_sessions(warehouse, spec, labs.target, prefer=context.run.run_id)
    first = sessions[0]
    records = publish_estimates(sessions, billing, warehouse)
    usd = {part: sum((row["ListCost"] or 0 for row in records if row["x_part"] == part), Decimal()) for part in PARTS}
    priced = all(row["ListCost"] is not None for row in records)
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


def publish_estimates(
    sessions: Sequence[Row], billing: Billing, warehouse: WarehouseCore, *, price_of: UnitPriceOf | None = None
) -> list[Row]:
    """Estimate what the closed sessions of one run cost, and publish what isn't published yet; the rows of all of it.

    Sessions of other runs that shared a node with them are estimated anew: they pay for less of it than was known.
    `price_of`: None: as `billing` has it, which may refuse an old price. Raises `CostError`, `UnknownPriceError`,
    `StalePriceError`, `WarehouseError`.
    """
    first, now = sessions[0], datetime.now(UTC)
    price_of = price_of or billing.node_hour_price
    found = attribute(warehouse, first["lab"], first["target"], price_of=price_of, run_id=first["run_id"])
    publish_changed(warehouse, found, price_of=price_of, now=now)
    reattribute_neighbours(warehouse, found, price_of=price_of, now=now)
    return [row for one in found for row in estimate_rows(one, price_of=price_of)]
