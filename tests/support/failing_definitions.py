"""A code location whose runs end in each way that `labs run` has to explain; the partition says which.

Belongs here: ways to end. Doesn't belong here: anything of a lab.
"""

import os
import threading
from pathlib import Path

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    Definitions,
    Failure,
    StaticPartitionsDefinition,
    asset,
    asset_check,
    in_process_executor,
)

from resources.contract import WarehouseError

RELEASED = "RELEASED_FILE"
"""Environment variable: the file that the interrupted asset's `finally` writes."""


@asset(partitions_def=StaticPartitionsDefinition(["mistake", "ours", "bug", "check", "long", "fine"]))
def deployed_stack(context: AssetExecutionContext) -> None:
    lab = context.partition_key
    context.log.info(f"{lab} · the stack is up\nand its second line")
    context.log.warning(f"{lab} · something to know")
    match lab:
        case "mistake":
            raise Failure("mistake has no pace 'slow'; it has: full (set LABS_PACE)", allow_retries=False)
        case "ours":
            raise WarehouseError("row 3 is wrong; correct it")
        case "bug":
            raise KeyError("surprise")
        case "long":
            try:
                context.log.info("long · waits to be interrupted")
                threading.Event().wait(60)
            finally:
                Path(os.environ[RELEASED]).write_text("released", encoding="utf-8")


@asset_check(asset=deployed_stack, blocking=True)
def rows_are_sound(context) -> AssetCheckResult:
    return AssetCheckResult(passed=context.op_execution_context.partition_key != "check", description="2 of 3 are bad")


defs = Definitions(assets=[deployed_stack], asset_checks=[rows_are_sound], executor=in_process_executor)
