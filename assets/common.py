"""What the lab's assets share: their partitions and group, progress lines, and the sessions that they work on.

Doesn't belong here: anything that only one asset needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from dagster import (
    AssetExecutionContext,
    Failure,
    MetadataValue,
    PartitionsDefinition,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.partitions import lab_partitions
from lab_pipelines.rows.common import Row
from resources.cluster import Session
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


def shown_table(columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]) -> TableMetadataValue:
    """Rows as a table of the UI; `columns` has each one's type. What is not known is an empty cell."""
    return MetadataValue.table(
        [TableRecord({name: "" if row[name] is None else row[name] for name in columns}) for row in rows],
        schema=TableSchema([TableColumn(name, kind) for name, kind in columns.items()]),
    )


def publish(warehouse: Warehouse, table: str, published: list[Row], session: Session, *, part: str) -> None:
    """Publish rows of one session; `part` tells its files of this table apart."""
    where = {"target": session.target, "lab": session.lab, "run_id": session.run_id}
    warehouse.publish(table, published, **where, part=f"{session.visit}.{part}")


def closed_sessions(warehouse: Warehouse, spec: LabSpec, target: str, *, prefer: str) -> list[Row]:
    """The rows of the released sessions of the lab's newest run on `target`, or of run `prefer` if it has some.

    One for each variant and turn, in the order in which they were walked. Raises `Failure` when the lab never ran
    there.
    """
    found = warehouse.query(
        "SELECT * FROM stack_sessions WHERE lab = $lab AND target = $target AND state = 'closed' AND run_id = ("
        "SELECT arg_max(run_id, (run_id = $prefer, recorded_at)) FROM stack_sessions "
        "WHERE lab = $lab AND target = $target AND state = 'closed') ORDER BY requested_at",
        {"lab": spec.id, "target": target, "prefer": prefer},
        within={"lab": spec.id, "target": target},
    )
    if not found:
        raise Failure(
            f"{spec.id} has no finished session on target {target}; materialize deployed_stack, load_run and "
            "metrics_snapshot first",
            allow_retries=False,
        )
    return found
