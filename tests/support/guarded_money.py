"""Money that the budget guard watches: sessions, leases, node pools and a bill, on a clock that a test sets."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, SkipReason, build_sensor_context

from lab_pipelines.budgets import MONTH, Budgets
from lab_pipelines.deployment import BudgetMode
from lab_pipelines.sensors.budget_guard import budget_guard
from resources.billing import PriceSheetBilling
from resources.budget_guard import BudgetGuard
from resources.cluster import Lease
from resources.labs import Labs
from resources.node_pools import NodePool
from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, RUN_LABEL
from resources.spending import Place, look
from tests.support.node_pools import T4, FilePools, LeasedCluster, node_pool
from tests.support.rows.money import cost_row
from tests.support.rows.sessions import session_row
from tests.support.warehouses import warehouse_in

A100 = "Standard_NC24ads_A100_v4"
T4_USD = Decimal("0.526")
T4_SPOT_USD = Decimal("0.0627")


class Clocked(LeasedCluster):
    """Leases on a clock of their own: by the wall's, the first hours of a month would lie in two."""

    at: str

    def now(self) -> datetime:
        return datetime.fromisoformat(self.at)

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        return super().release(lab, run_id=run_id) and self.now()


class Money:
    """A target `aks` whose leases, pools and lake are one test's, and the guard over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pools = FilePools(folder=str(folder))
        self.now = datetime(2026, 3, 18, 12, tzinfo=UTC)
        self.cluster = self.cluster_of(Clocked)
        self.warehouse = warehouse_in(folder)
        self.pools.put()
        self.cluster.put()
        self.billing = PriceSheetBilling()
        self.mode: BudgetMode = "cut"
        self.budgets(month_usd=100)

    def cluster_of(self, kind: type[Clocked]) -> Clocked:
        return kind(data_dir=str(self.folder), at=self.now.isoformat())

    def budgets(self, **fields: Any) -> None:
        (self.folder / "budgets.yaml").write_text(json.dumps(fields), encoding="utf-8")

    @property
    def guard(self) -> BudgetGuard:
        return BudgetGuard(mode=self.mode, budgets_file=str(self.folder / "budgets.yaml"))

    @property
    def place(self) -> Place:
        return Place("aks", self.cluster, self.pools, self.billing, self.warehouse)

    def tick(self, target: str = "aks") -> str:
        resources = {
            "labs": Labs(target=target),
            "cluster": self.cluster,
            "node_pools": self.pools,
            "billing": self.billing,
            "budget_guard": self.guard,
            "warehouse": self.warehouse,
        }
        result = budget_guard(build_sensor_context(instance=DagsterInstance.ephemeral(), resources=resources))
        assert isinstance(result, SkipReason) and result.skip_message is not None
        return result.skip_message

    def spend(self, scope: str = MONTH) -> Any:
        """What the guard reads as spent now, by an amount that nobody reaches."""
        budgets = Budgets(month_usd=Decimal(10**6), lab_usd=Decimal(10**6))
        [verdict] = [one for one in look(self.place, budgets).verdicts if one.scope == scope]
        return verdict.spend

    def publish(self, table: str, row: dict[str, Any], part: str) -> None:
        where = {"target": row["target"], "lab": row["lab"], "run_id": row["run_id"]}
        self.warehouse.publish(table, [row], **where, part=part)

    def up(
        self, lab: str = "L06", *, hours: float = 2.0, run_id: str = "run-1", sku: str | None = T4, spot: bool = False
    ) -> None:
        """A session that was requested so long ago and is up, under a lease of 15 minutes; its pool has its node."""
        started = self.now - timedelta(hours=hours)
        where = {"target": "aks", "lab": lab, "run_id": run_id, "session_id": f"s-{run_id}"}
        real = {"engine": "vllm", "provenance": "measured", "time_scale": 1.0, "recorded_at": started}
        times = {"requested_at": started, "ready_at": started, "released_at": None, "held_s": None, "cold_start_s": 0.0}
        session = session_row(state="open", nodes=1, sku=sku, first_token_s=None, **where, **real, **times)
        self.publish("stack_sessions", session, "baseline.open")
        self.cluster.put(*self.cluster.leases(), self.lease(lab, run_id=run_id))
        if sku is not None:
            pool = node_pool(f"{lab.lower()}pool", vm_size=sku, spot=spot)
            self.pools.put(*self.pools.read(), self.held(pool, run_id=run_id, lab=lab))

    def past(self, usd: float, *, lab: str = "L11", run_id: str = "past", at: datetime | None = None) -> dict[str, Any]:
        """A session that was released an hour before now (or at `at`), and its estimate, which is returned."""
        end = at or self.now - timedelta(hours=1)
        where = {"target": "aks", "lab": lab, "run_id": run_id, "session_id": f"s-{run_id}"}
        times = {"requested_at": end - timedelta(hours=1), "ready_at": end - timedelta(hours=1), "released_at": end}
        self.publish("stack_sessions", session_row(**where, **times), "baseline.closed")
        charged = {"ChargePeriodStart": end - timedelta(hours=1), "ChargePeriodEnd": end}
        row = cost_row(ListCost=Decimal(str(usd)), **where, **charged)
        self.publish("cost_records", row, "estimated")
        return row

    def lease(self, lab: str, *, run_id: str) -> Lease:
        until = self.now + timedelta(minutes=15)
        return Lease(lease_id=f"lease-{run_id}", lab=lab, run_id=run_id, owner="host/1:1", expires_at=until)

    def held(self, pool: NodePool, *, run_id: str, lab: str) -> NodePool:
        until = int((self.now + timedelta(minutes=15)).timestamp())
        tags = {LEASE_LABEL: f"lease-{run_id}", RUN_LABEL: run_id, EXPIRES_LABEL: str(until), "lab": lab.lower()}
        return pool.model_copy(update={"tags": {**pool.tags, **tags}})

    def rows(self) -> list[dict[str, Any]]:
        return list(reversed(self.place.log.last(100)))

    def left(self) -> tuple[list[str], dict[str, int]]:
        """Labs that hold a lease, and the nodes of each pool."""
        return [one.lab for one in self.cluster.leases()], {pool.name: pool.count for pool in self.pools.read()}


def near(amount: Decimal, expected: float) -> bool:
    return abs(float(amount) - expected) < 0.005
