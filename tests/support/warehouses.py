"""A warehouse in a test's own folder, and what is published into it. Doesn't belong here: rows (rows/)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resources.warehouse import Warehouse
from tests.support.rows.common import Row


def publish_run(warehouse: Warehouse, tables: Mapping[str, Sequence[Row]]) -> None:
    """Publish what `lab_run` made."""
    for table, rows in tables.items():
        first = rows[0]
        warehouse.publish(table, rows, target=first["target"], lab=first["lab"], run_id=first["run_id"])


def warehouse_in(directory: Path, **fields: Any) -> Warehouse:
    """An empty warehouse in a test's own folder."""
    return Warehouse(data_dir=str(directory / "data"), **fields)
