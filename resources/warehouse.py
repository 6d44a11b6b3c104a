"""The warehouse as a Dagster resource: what assets and checks publish to and ask.

Doesn't belong here: what it can do (warehouse_core.py), which needs no Dagster.
"""

from __future__ import annotations

from dagster import ConfigurableResource

from resources.contract import WarehouseError
from resources.lake import Within
from resources.snapshot import SNAPSHOT, open_snapshot
from resources.warehouse_core import SCHEMA_DIR, VIEWS_DIR, WarehouseCore

__all__ = ["SNAPSHOT", "Warehouse", "WarehouseError", "Within", "open_snapshot"]


class Warehouse(WarehouseCore, ConfigurableResource):
    """One warehouse below `data_dir`. Any number of processes may use it at once."""

    data_dir: str
    schema_dir: str = SCHEMA_DIR
    views_dir: str = VIEWS_DIR
    lake_url: str | None = None
