"""What the lab's assets share: their partitions and group, progress lines, and the session that they work on.

Doesn't belong here: anything that only one asset needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from dagster import AssetExecutionContext, Failure, PartitionsDefinition

from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.partitions import lab_partitions
from lab_pipelines.rows import Row
from resources.warehouse import Warehouse


class LabAssetArguments(TypedDict):
    partitions_def: PartitionsDefinition[str]
    group_name: str


LAB_ASSET: LabAssetArguments = {"partitions_def": lab_partitions, "group_name": "lab"}
"""Arguments of every asset that is partitioned by lab."""


def progress_to(context: AssetExecutionContext) -> Callable[[str], None]:
    """Progress as log lines of the run."""

    def progress(line: str) -> None:
        context.log.info(f"{context.partition_key} · {line}")

    return progress


def closed_session(warehouse: Warehouse, spec: LabSpec, target: str, *, prefer: str) -> Row:
    """The row of the lab's newest released session on `target`; that of run `prefer` if it has one.

    Raises `Failure` when the lab never ran there.
    """
    found = warehouse.query(
        "SELECT * FROM stack_sessions WHERE lab = ? AND target = ? AND state = 'closed' "
        "ORDER BY run_id = ? DESC, recorded_at DESC LIMIT 1",
        [spec.id, target, prefer],
    )
    if not found:
        raise Failure(
            f"{spec.id} has no finished session on target {target}; materialize deployed_stack, load_run and "
            "metrics_snapshot first",
            allow_retries=False,
        )
    return found[0]
