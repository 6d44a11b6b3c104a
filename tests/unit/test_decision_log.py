"""A sensor's decisions, read while another process publishes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from resources.decision_log import DecisionLog
from resources.warehouse import Warehouse
from tests.support.rows.decisions import budget_decision_row
from tests.support.warehouses import warehouse_in

AT = datetime(2026, 3, 18, 12, tzinfo=UTC)
JOIN_S = 0.5
"""How long a reader waits for the other process, which may have to wait for the reader."""


class Interrupted(DecisionLog):
    """Another process publishes everything as soon as this one has looked for batches."""

    def _batches(self) -> list[Path]:
        found = super()._batches()
        publish_meanwhile(self._warehouse)
        return found


class InterruptedLake(Warehouse):
    """Another process publishes everything as soon as the lake has answered."""

    def query(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        found = super().query(*arguments, **options)
        publish_meanwhile(Warehouse(data_dir=self.data_dir))
        return found


def publish_meanwhile(warehouse: Any) -> None:
    other = DecisionLog(warehouse, "aks", table="budget_decisions", about="scope")
    process = Thread(target=lambda: other.publish(now=AT, at_once=True))
    process.start()
    process.join(JOIN_S)


@pytest.mark.parametrize("where", ["after the batches were found", "after the lake was asked"])
@pytest.mark.parametrize(
    "read", [lambda log: log.newest()["month"], lambda log: log.last(1)[0]], ids=["newest", "last"]
)
def test_what_is_published_meanwhile_is_neither_an_error_nor_missed(
    tmp_path: Path, where: str, read: Callable[[DecisionLog], dict[str, Any]]
) -> None:
    warehouse = warehouse_in(tmp_path)
    log = DecisionLog(warehouse, "aks", table="budget_decisions", about="scope")
    log.append([budget_decision_row(target="aks", scope="month", recorded_at=AT, state="warn")], now=AT)
    log.publish(now=AT, at_once=True)
    later = AT + timedelta(minutes=1)
    log.append([budget_decision_row(target="aks", scope="month", recorded_at=later, state="cut")], now=later)
    if where == "after the batches were found":
        reader: DecisionLog = Interrupted(warehouse, "aks", table="budget_decisions", about="scope")
    else:
        lake = InterruptedLake(data_dir=warehouse.data_dir)
        reader = DecisionLog(lake, "aks", table="budget_decisions", about="scope")
    assert read(reader)["state"] == "cut"
