"""What the lab's assets share: their partitions and group, and progress lines.

Doesn't belong here: anything that only one asset needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from dagster import AssetExecutionContext, PartitionsDefinition

from lab_pipelines.partitions import lab_partitions


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
