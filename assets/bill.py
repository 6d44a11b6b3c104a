"""bill: ask the cloud what it charged for each day, and reconcile the estimates of cost_attribution with that.

Not partitioned: a bill is of the whole cluster. On a target that nobody bills there is nothing to do.
"""

from datetime import UTC, datetime

from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from assets.cost_attribution import cost_attribution
from lab_pipelines.bill import ended_days
from resources.bill_ledger import BillLedger
from resources.billing import Billing
from resources.labs import Labs
from resources.warehouse import Warehouse

PARTITION_TAG = "dagster/partition"
"""Dagster's own tag of a run: its partition, which is a lab."""
WITHIN_S = 30 * 60.0
"""A hundred calls at four a minute; what isn't done by then, the next run continues."""


@asset(group_name="bill", deps=[cost_attribution], description=__doc__)
def bill(context: AssetExecutionContext, labs: Labs, billing: Billing, warehouse: Warehouse) -> MaterializeResult:
    if not billing.gives_bill:
        reason = f"target {labs.target} has no bill: its costs stay estimates"
        context.log.debug(reason)
        return MaterializeResult(metadata={"skipped": MetadataValue.text(reason)})
    if (lab := context.run.tags.get(PARTITION_TAG)) is not None:
        # Of every asset, a lab's run would spend the day's calls, and fail where Azure refuses to show its bill.
        reason = f"a run of {lab} asks for no bill: the schedule daily_bill does, and labs cost reconcile"
        context.log.debug(reason)
        return MaterializeResult(metadata={"skipped": MetadataValue.text(reason)})
    ledger = BillLedger(warehouse, labs.target)
    first, last = ended_days(datetime.now(UTC))
    try:
        ledger.ask(billing, first, last, within_s=WITHIN_S, progress=context.log.info)
    finally:  # what was answered before Azure said no is worth reconciling, too
        told = ledger.reconcile(first, last, progress=context.log.info)
    return MaterializeResult(
        metadata={
            "dagster/row_count": told.rows,
            "billed": told.billed,
            "waiting": told.waiting,
            "unplaced": MetadataValue.text(
                ", ".join(f"{amount} {unit}" for unit, amount in told.unplaced.items()) or "0"
            ),
        }
    )
