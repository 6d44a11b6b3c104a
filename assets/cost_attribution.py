"""cost_attribution: split the run's node time into serve, idle, cold start and failed, by variant, and price it."""

from decimal import Decimal

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.common import LAB_ASSET, closed_sessions, progress_to
from assets.metrics_snapshot import metrics_snapshot
from lab_pipelines import rows
from lab_pipelines.catalog.prices import UnitPrice
from lab_pipelines.cost import (
    PARTS,
    ClosedSession,
    CostError,
    CostPart,
    RequestInterval,
    StageWindow,
    cost_rows,
    split_session,
)
from resources.billing import Billing
from resources.labs import Labs
from resources.warehouse import Warehouse, Within
from resources.warehouse_core import WarehouseCore


@asset(**LAB_ASSET, deps=[metrics_snapshot], description=__doc__)
def cost_attribution(
    context: AssetExecutionContext, labs: Labs, billing: Billing, warehouse: Warehouse
) -> MaterializeResult:
    spec = labs.spec(context.partition_key)
    if any(nodes.min_count is not None for nodes in spec.nodes):
        raise CostError(
            f"the nodes of {spec.id} come and go, and node time is split over a fixed number of nodes so far"
        )
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


def publish_estimates(sessions: list[rows.Row], billing: Billing, warehouse: WarehouseCore) -> list[rows.Row]:
    """Publish the `cost_records` of closed sessions of one run, and return them.

    Raises `CostError`, `UnknownPriceError`, `WarehouseError`.
    """
    records = list[rows.Row]()
    for session in sessions:
        parts, price = _parts(session, billing, warehouse)
        records += cost_rows(parts, shared=rows.common_of(session), sku=session["sku"], price=price)
    first = sessions[0]
    where = {"target": first["target"], "lab": first["lab"], "run_id": first["run_id"]}
    warehouse.publish("cost_records", records, **where, part="estimated")
    return records


def _parts(session: rows.Row, billing: Billing, warehouse: WarehouseCore) -> tuple[list[CostPart], UnitPrice | None]:
    """The parts of one session's node time, and the price of its node-hour."""
    run: Within = {"run_id": session["run_id"]}
    stages = warehouse.query(
        "SELECT step, stage, started_at, ended_at FROM load_stages WHERE session_id = ?",
        [session["session_id"]],
        within=run,
    )
    requests = warehouse.query(
        "SELECT sent_at, finished_at, outcome FROM requests WHERE session_id = ?", [session["session_id"]], within=run
    )
    price = billing.node_hour_price(session["sku"])
    parts = split_session(
        ClosedSession.from_row(session),
        [StageWindow(**stage) for stage in stages],
        [RequestInterval(**request) for request in requests],
        usd_per_node_hour=price.usd if price else None,
    )
    return parts, price
