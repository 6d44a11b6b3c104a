"""The budget guard at work: what it reads as spent, what it refuses, what it cuts, and what it leaves when it dies."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, Failure, SkipReason, build_sensor_context
from typer.testing import CliRunner, Result

from assets.budget import require_budget_left, told_when_cut
from lab_pipelines import build
from lab_pipelines.budgets import MONTH, Budgets
from lab_pipelines.catalog.loader import CATALOG_DIR, load_catalog
from lab_pipelines.catalog.prices import StalePriceError
from lab_pipelines.cli import app
from lab_pipelines.cost import ClosedSession
from lab_pipelines.deployment import BudgetMode, Deployment
from lab_pipelines.sensors.budget_guard import Watch, budget_guard, tick
from resources import spending
from resources.billing import PriceSheetBilling
from resources.budget_guard import BudgetGuard
from resources.cluster import ClusterError, Lease
from resources.labs import Labs
from resources.node_pools import NodePool
from resources.ownership import BY_HAND, EXPIRES_LABEL, LEASE_LABEL, RUN_LABEL
from resources.spending import Place, look
from tests.support.command_line import own_environment, refused
from tests.support.node_costs import node_cost
from tests.support.node_pools import T4, FilePools, LeasedCluster, node_pool
from tests.support.rows import (
    billed,
    cost_row,
    event_row,
    gpu_decision_row,
    node_time_row,
    run_mark_row,
    session_row,
    stage_row,
    warehouse_in,
)

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


@pytest.fixture
def money(tmp_path: Path) -> Money:
    return Money(tmp_path)


def near(amount: Decimal, expected: float) -> bool:
    return abs(float(amount) - expected) < 0.005


# What was spent


def test_sessions_that_are_up_count_from_their_request_and_leases_until_their_end(money: Money) -> None:
    money.past(7)
    money.up(hours=2)
    spend = money.spend()
    assert spend.closed_usd == 7
    assert near(spend.open_usd, 2 * 0.526)
    assert near(spend.projected_usd, 0.25 * 0.526)
    assert spend.unknown == ()
    assert money.spend("L11").committed_usd == 7
    assert money.spend("L06").closed_usd == 0


def test_a_settled_bill_counts_where_it_is_higher_and_a_provisional_one_doesn_t(money: Money) -> None:
    cheaper, dearer, early = (money.past(10, run_id=name) for name in ("cheaper", "dearer", "early"))
    money.publish("cost_records", billed(cheaper, Decimal(8)), "billed")
    money.publish("cost_records", billed(dearer, Decimal(13)), "billed")
    money.publish("cost_records", billed(early, Decimal(99), x_bill_state="provisional"), "billed")
    spend = money.spend()
    assert (spend.closed_usd, spend.billed_more_usd) == (33, 3)


def test_the_newest_estimate_holds(money: Money) -> None:
    row = money.past(10)
    money.publish("cost_records", row | {"ListCost": Decimal(12), "recorded_at": money.now}, "again")
    assert money.spend().closed_usd == 12


def test_only_what_lies_in_the_month_counts_for_it_and_in_the_year_for_a_lab(money: Money) -> None:
    money.now = datetime(2026, 4, 15, tzinfo=UTC)
    money.cluster = money.cluster_of(Clocked)
    money.past(10, at=datetime(2026, 4, 1, 0, 30, tzinfo=UTC))  # half of its hour lies in March
    money.past(4, run_id="march", at=datetime(2026, 3, 20, tzinfo=UTC))
    money.past(100, run_id="last-year", at=datetime(2025, 12, 1, tzinfo=UTC))
    assert money.spend().closed_usd == 5
    assert money.spend("L11").closed_usd == 14


def test_in_january_the_month_is_still_not_the_year(money: Money) -> None:
    money.now = datetime(2026, 2, 10, tzinfo=UTC)
    money.cluster = money.cluster_of(Clocked)
    money.past(3, at=datetime(2026, 1, 10, tzinfo=UTC))
    money.past(2, run_id="february", at=datetime(2026, 2, 9, tzinfo=UTC))
    assert (money.spend().closed_usd, money.spend("L11").closed_usd) == (2, 5)
    money.now = datetime(2026, 1, 20, tzinfo=UTC)
    money.cluster = money.cluster_of(Clocked)
    assert (money.spend().closed_usd, money.spend("L11").closed_usd) == (3, 5)


def test_virtual_time_is_no_month_of_anybody_s_money(money: Money) -> None:
    row = money.past(1)
    for table, one in (("stack_sessions", session_row()), ("cost_records", row)):
        virtual = {"target": "rehearsal", "lab": "L11", "run_id": "virtual", "session_id": "virtual"}
        money.publish(table, one | virtual, "baseline")
    assert money.spend().closed_usd == 1


def test_a_run_that_died_stops_counting_when_its_lease_can_t_have_lasted_longer(money: Money) -> None:
    money.up(hours=5)
    money.cluster.put()
    money.pools.put()
    assert near(money.spend().closed_usd, 0.25 * 0.526)
    heard = {"target": "aks", "run_id": "run-1", "session_id": "s-run-1", "engine": "vllm", "provenance": "measured"}
    event = event_row(**heard, time_scale=1.0, recorded_at=money.now - timedelta(hours=2))
    money.publish("events", event, "ramp")
    assert near(money.spend().closed_usd, 3.25 * 0.526)


def test_a_closed_session_counts_before_anybody_has_split_its_cost(money: Money) -> None:
    start = money.now - timedelta(hours=3)
    times = {"requested_at": start, "ready_at": start, "released_at": start + timedelta(hours=2), "cold_start_s": 0.0}
    money.publish("stack_sessions", session_row(target="aks", time_scale=1.0, nodes=2, **times), "baseline.closed")
    assert near(money.spend().closed_usd, 2 * 2 * 0.526)


def test_the_first_token_is_part_of_the_cold_start_and_counts_once(money: Money) -> None:
    start = money.now - timedelta(hours=3)
    ready = start + timedelta(hours=1)
    cold = {"cold_start_s": 3600.0 + 1800.0, "first_token_s": 1800.0}
    times = {"requested_at": start, "ready_at": ready, "released_at": ready + timedelta(hours=2)}
    row = session_row(target="aks", time_scale=1.0, nodes=1, provenance="measured", engine="vllm", **times, **cold)
    money.publish("stack_sessions", row, "baseline.closed")
    assert near(money.spend().closed_usd, 3 * 0.526)
    assert near(money.spend().closed_usd, float(node_cost(ClosedSession.from_row(row), T4_USD))), "as cost.py has it"


def test_nodes_that_no_session_accounts_for_cost_too(money: Money) -> None:
    start = money.now - timedelta(minutes=30)
    idle = [
        gpu_decision_row(target="aks", held_by=[], tick_at=start + timedelta(minutes=n), usd_per_h=Decimal(60))
        for n in range(10)
    ]
    late = gpu_decision_row(
        target="aks", held_by=["L06"], tick_at=money.now - timedelta(minutes=1), usd_per_h=Decimal(60)
    )
    money.warehouse.publish("gpu_decisions", [*idle, late], target="aks", lab="all", run_id=idle[0]["run_id"])
    # Ten looks, of which the last holds for three minutes at most, since nobody looked for longer.
    assert near(money.spend().pools_usd, 9 + 3 + 1)
    assert near(money.spend("L06").pools_usd, 1)
    money.up("L06", hours=1)
    assert near(money.spend("L06").pools_usd, 0), "its session accounts for them"


def test_a_run_that_died_long_ago_accounts_for_no_later_nodes_of_its_lab(money: Money) -> None:
    money.up("L06", hours=240, run_id="died")
    money.cluster.put()
    money.pools.put()
    start = money.now - timedelta(hours=2)
    looks = [
        gpu_decision_row(target="aks", held_by=["L06"], tick_at=start + timedelta(minutes=n), usd_per_h=Decimal(6))
        for n in range(60)
    ]
    run_id = looks[0]["run_id"]
    money.warehouse.publish("gpu_decisions", looks, target="aks", lab="all", run_id=run_id)
    assert near(money.spend("L06").pools_usd, 60 * 0.1)
    heard = {"target": "aks", "run_id": "died", "session_id": "s-died", "engine": "vllm", "provenance": "measured"}
    event = event_row(**heard, time_scale=1.0, recorded_at=money.now - timedelta(hours=1.5))
    money.publish("events", event, "ramp")
    # It was there for half an hour of them, and may have been for another quarter.
    assert near(money.spend("L06").pools_usd, 15 * 0.1)


def test_spot_nodes_count_as_spot_nodes_up_and_closed(money: Money) -> None:
    money.up(hours=20, spot=True)
    assert near(money.spend().open_usd, 20 * 0.0627)
    assert near(money.spend().projected_usd, 0.25 * 0.0627)
    start = money.now - timedelta(hours=30)
    of = {"target": "aks", "lab": "L11", "run_id": "over", "session_id": "over", "time_scale": 1.0, "nodes": 1}
    times = {"requested_at": start, "ready_at": start, "released_at": start + timedelta(hours=20), "held_s": 72_000.0}
    session = session_row(**of, **times, cold_start_s=0.0, first_token_s=None)
    money.publish("stack_sessions", session, "baseline.closed")
    assert near(money.spend().closed_usd, 20 * 0.526)
    money.publish("node_time", node_time_row(session, priority="spot", pool="t4spot"), "run")
    assert near(money.spend().closed_usd, 20 * 0.0627)


def test_where_no_pool_tells_how_nodes_are_rented_the_spec_does(
    money: Money, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    money.up(hours=20)
    money.pools.put()
    assert near(money.spend().open_usd, 20 * 0.526)
    written = (CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8")
    rented = written.replace(f"sku: {T4}", f"sku: {T4}, priority: spot", 1)
    assert rented != written
    (tmp_path / "L06.yaml").write_text(rented, encoding="utf-8")
    monkeypatch.setattr(spending, "load_catalog", lambda: load_catalog(tmp_path))
    assert near(money.spend().open_usd, 20 * 0.0627)
    assert near(money.spend().projected_usd, 0.25 * 0.0627)


def test_pools_that_somebody_was_given_are_committed_to_until_their_tag_says(money: Money) -> None:
    until = str(int((money.now + timedelta(hours=8)).timestamp()))
    tags = {"lab-pipelines": "managed", LEASE_LABEL: "x", RUN_LABEL: f"{BY_HAND}-ada", EXPIRES_LABEL: until}
    money.pools.put(node_pool("by-hand", tags=tags), node_pool("idle"), node_pool("foreign", tags={}))
    assert abs(float(money.spend().projected_usd) - 8 * 0.526) < 0.05


@pytest.mark.parametrize("sku", [None, "Standard_Unheard_Of"])
def test_a_machine_without_a_price_is_unknown_and_warns(money: Money, sku: str | None) -> None:
    money.up(sku=sku)
    assert money.spend().open_usd == 0
    assert any("no price of L06's machine" in one for one in money.spend().unknown)
    assert "the month: warn" in money.tick()
    assert money.left()[0] == ["L06"]


# The tick


def test_without_a_budget_nothing_is_recorded_and_the_tick_says_so(money: Money) -> None:
    money.budgets()
    money.past(10_000)
    assert "no budget is set" in money.tick()
    assert money.rows() == []


@pytest.mark.parametrize("target", ["local", "rehearsal"])
def test_modelled_money_is_not_guarded(money: Money, target: str) -> None:
    assert money.tick(target).startswith(f"money on target {target} is modelled")


def test_switched_off_it_reads_nothing(money: Money) -> None:
    money.mode = "off"
    assert money.tick() == "switched off (LABS_BUDGET_GUARD=off)"
    assert money.pools.calls() == []


def test_a_file_that_can_t_be_read_decides_nothing(money: Money) -> None:
    money.budgets(month_usd=-1)
    assert "budgets.yaml:1: month_usd" in money.tick()
    assert money.rows() == []


def test_a_state_is_a_row_when_it_changes_with_every_amount(money: Money) -> None:
    money.past(70)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"
    money.past(15, run_id="second")
    assert money.tick().startswith("the month: warn, ok → warn: 85.00 of 100.00 USD spent (85 %)")
    assert "the month: warn, 85.00 of" in money.tick()
    [row] = money.rows()
    assert (row["scope"], row["state_before"], row["state"], row["action"], row["outcome"]) == (
        *("month", "ok", "warn", "tell"),
        None,
    )
    assert (row["spent_usd"], row["closed_usd"], row["budget_usd"], row["guard"]) == (85, 85, 100, "cut")
    assert json.loads(row["budgets"])["month_usd"] == "100"
    assert money.warehouse.query("SELECT count(*) AS n FROM budget_decisions") == [{"n": 1}], "at once, not in an hour"


def test_a_raised_budget_holds_at_the_next_look(money: Money) -> None:
    money.past(110)
    assert "the month: refuse" in money.tick()
    money.budgets(month_usd=1000)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"


def test_over_the_lab_s_budget_its_run_is_marked_its_stack_and_nodes_go_and_its_books_are_closed(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.up("L11", hours=1, run_id="run-11")
    assert money.tick().startswith("cut: L06; L06: cut, ok → cut: 1.58 of 1.00 USD spent (158 %)")
    assert money.left() == (["L11"], {"l06pool": 0, "l11pool": 1})
    [mark] = money.warehouse.query("FROM run_marks")
    assert (mark["lab"], mark["run_id"], mark["mark"], mark["scope"]) == ("L06", "run-1", "cut", "L06")
    [session] = money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert session["run_id"] == "run-1"
    assert abs(session["held_s"] - 3 * 3600) < 60
    [paid] = money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost WHERE run_id = 'run-1'")
    assert near(paid["usd"], 3 * 0.526)
    assert near(money.spend("L06").closed_usd, 3 * 0.526), "it counts once, and still"
    told, asked, done = money.rows()
    assert [(one["action"], one["outcome"]) for one in (told, asked, done)] == [
        *[("tell", None), ("cut", "asked")],
        ("cut", "done"),
    ]
    assert (done["of_lab"], done["of_run"], done["of_pool"]) == ("L06", "run-1", None)
    assert money.tick().startswith("L06: cut, 1.58"), "and nothing is left to do"
    assert len(money.rows()) == 3


def test_over_the_month_s_budget_every_gpu_goes_the_dearest_first_and_what_has_none_stays(money: Money) -> None:
    money.budgets(month_usd=1)
    money.past(2)
    money.up("L06", hours=0.1)
    money.up("L11", hours=0.1, run_id="run-11", sku=A100)
    money.cluster.put(*money.cluster.leases(), money.lease("L01", run_id="run-01"))
    money.pools.put(*money.pools.read(), node_pool("forgotten"), node_pool("foreign", tags={}))
    assert money.tick().startswith("cut: L11, L06, forgotten; the month: cut")
    leases, pools = money.left()
    assert leases == ["L01"]
    assert pools == {"l06pool": 0, "l11pool": 0, "forgotten": 0, "foreign": 1}
    scaled = [call.split()[1] for call in money.pools.calls() if call.startswith("scale")]
    assert scaled == ["l11pool", "l06pool", "forgotten"]


@pytest.mark.parametrize("mode", ["warn", "refuse"])
def test_by_itself_it_only_says_what_it_would_cut(money: Money, mode: BudgetMode) -> None:
    assert BudgetGuard().mode == "refuse"
    money.mode = mode
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.tick()
    money.tick()
    assert money.left() == (["L06"], {"l06pool": 1})
    assert [(one["action"], one["outcome"]) for one in money.rows()] == [("tell", None), ("cut", "withheld")]
    assert money.warehouse.query("FROM run_marks") == []


class Ending(Clocked):
    """The run ends by itself between the first look and the second."""

    def leases(self) -> list[Lease]:
        found = super().leases()
        self.put()
        return found


def test_a_run_that_ends_meanwhile_is_not_marked(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.cluster = money.cluster_of(Ending)
    money.tick()
    assert money.warehouse.query("FROM run_marks") == []
    assert [(one["action"], one["outcome"]) for one in money.rows()] == [("tell", None)]


def test_a_run_on_spot_nodes_is_cut_for_what_they_cost_and_its_books_say_so(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=10, spot=True)
    assert money.tick() == "1 budget within bounds (LABS_BUDGET_GUARD=cut)"
    money.budgets(lab_usd=0.5)
    assert money.tick().startswith("cut: L06; L06: cut, ok → cut: 0.63 of 0.50 USD spent")
    [held] = money.warehouse.query("FROM node_time")
    assert (held["pool"], held["nodes"], held["sku"], held["priority"]) == ("l06pool", 1, T4, "spot")
    [session] = money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert (held["held_from"], held["held_until"]) == (session["requested_at"], session["released_at"])
    paid = money.warehouse.query("SELECT DISTINCT x_priority, x_pool, ListUnitPrice FROM cost_records")
    assert [tuple(row.values()) for row in paid] == [("spot", "l06pool", T4_SPOT_USD)]
    assert near(money.spend("L06").closed_usd, 10 * 0.0627)


def test_what_a_cut_run_has_cost_can_be_told_by_an_old_price(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.billing = PriceSheetBilling(max_age_days=0)
    with pytest.raises(StalePriceError):
        money.billing.node_hour_price(T4)
    money.up("L06", hours=3)
    assert money.tick().startswith("cut: L06")
    assert money.rows()[-1]["outcome"] == "done"
    assert near(money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost")[0]["usd"], 3 * 0.526)


# What dies half-way


class Killed(Exception):
    """Where the daemon died."""


def dies(money: Money) -> None:
    """One tick, which ends where the daemon is killed and nowhere else. Dagster wraps what a sensor raises."""
    with pytest.raises(Exception) as raised:
        money.tick()
    chain, error = list[BaseException](), raised.value
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    assert any(isinstance(one, Killed) for one in chain), chain


class DiesAtRelease(Clocked):
    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        raise Killed


class DiesAfterRelease(Clocked):
    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        super().release(lab, run_id=run_id)
        raise Killed


class DiesAtScale(FilePools):
    def begin_scale(self, *arguments: Any, **options: Any) -> datetime:
        raise Killed


@pytest.mark.parametrize("where", ["scale", "release", "after release"])
def test_a_daemon_that_dies_after_the_mark_is_finished_by_the_next_tick(money: Money, where: str) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    cluster, pools = money.cluster, money.pools
    if where == "scale":
        money.pools = DiesAtScale(folder=pools.folder)
    else:
        kind = DiesAtRelease if where == "release" else DiesAfterRelease
        money.cluster = money.cluster_of(kind)
    dies(money)
    assert len(money.warehouse.query("FROM run_marks")) == 1
    money.cluster, money.pools = cluster, pools
    money.tick()
    assert money.left() == ([], {"l06pool": 0})
    assert len(money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")) == 1
    assert near(money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost")[0]["usd"], 3 * 0.526)


def test_a_marked_run_is_cut_even_if_the_budget_was_raised_in_between(money: Money) -> None:
    """Its rows count for nothing from the mark on: to go on would only cost."""
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.cluster = money.cluster_of(DiesAtRelease)
    dies(money)
    money.cluster = money.cluster_of(Clocked)
    money.budgets(lab_usd=1000)
    assert money.tick().startswith("cut: L06")
    assert money.left()[0] == []


@pytest.mark.parametrize("where", ["scale", "release"])
def test_two_daemons_at_once_cut_once(money: Money, where: str) -> None:
    """Another one, which the lock of this data folder doesn't hold back, does all of it in the middle of this one's."""
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    budgets, other = money.guard.budgets(), Watch(money.place, money.guard, lambda line: None)

    class Scaling(FilePools):
        def begin_scale(self, *arguments: Any, **options: Any) -> datetime:
            tick(other, budgets)
            return super().begin_scale(*arguments, **options)

    class Releasing(Clocked):
        def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
            tick(other, budgets)
            return super().release(lab, run_id=run_id)

    if where == "scale":
        money.pools = Scaling(folder=money.pools.folder)
    else:
        money.cluster = money.cluster_of(Releasing)
    tick(Watch(money.place, money.guard, lambda line: None), budgets)
    assert len(money.warehouse.query("FROM run_marks")) == 1
    assert len(money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")) == 1
    assert near(money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost")[0]["usd"], 3 * 0.526)
    assert money.left() == ([], {"l06pool": 0})


def test_a_tick_that_takes_long_is_not_joined_by_the_next(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    said = list[str]()

    class Slow(Clocked):
        def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
            money.cluster = money.cluster_of(Clocked)
            said.append(money.tick())
            return super().release(lab, run_id=run_id)

    money.cluster = money.cluster_of(Slow)
    assert money.tick().startswith("cut: L06")
    assert said == ["the tick before this one is still at it"]


def test_a_run_that_closed_its_own_session_keeps_its_row(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)

    class Closing(Clocked):
        def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
            [opened] = money.warehouse.query("FROM stack_sessions")
            own = {"state": "closed", "released_at": money.now, "held_s": 3 * 3600.0}
            money.publish("stack_sessions", opened | own, "baseline.closed")
            return super().release(lab, run_id=run_id)

    money.cluster = money.cluster_of(Closing)
    money.tick()
    [session] = money.warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert session["held_s"] == 3 * 3600.0
    assert near(money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost")[0]["usd"], 3 * 0.526)


# Refusal


def ask(money: Money, lab: str = "L06") -> None:
    spec = load_catalog().spec(lab)
    require_budget_left(money.guard, money.place, spec, spec.variants, run_id="new", progress=list[str]().append)


@pytest.mark.parametrize("scope", ["month", "lab"])
def test_a_spent_budget_refuses_the_next_gpu_and_says_which_how_much_and_what_to_do(money: Money, scope: str) -> None:
    money.budgets(**({"month_usd": 50} if scope == "month" else {"labs": {"L06": 50}}))
    money.past(49, lab="L06")
    ask(money)
    money.past(2, lab="L06", run_id="second")
    with pytest.raises(Failure) as caught:
        ask(money)
    said = str(caught.value.description)
    assert said.startswith(f"L06 gets no GPU, for the budget of {'the month' if scope == 'month' else 'L06'}: ")
    assert "51.00 of 50.00 USD spent (102 %); refused from 100 %, until " in said
    assert f"Raise {'month_usd' if scope == 'month' else 'labs: L06'} in " in said and "budgets.yaml" in said
    [row] = money.warehouse.query("FROM budget_decisions")
    assert (row["action"], row["outcome"], row["of_lab"], row["of_run"]) == ("refuse", "done", "L06", "new")
    if scope == "lab":
        ask(money, "L11")


def test_a_lab_without_a_gpu_is_not_refused(money: Money) -> None:
    money.past(500)
    ask(money, "L01")
    assert money.pools.calls() == [], "and nothing is asked"


def test_a_refusal_needs_no_sensor_and_no_state_of_one(money: Money) -> None:
    money.past(500)
    assert not (money.folder / "data" / "state").exists()
    with pytest.raises(Failure, match=r"500\.00 of 100\.00 USD"):
        ask(money)


def test_warn_lets_it_pass_and_off_does_not_look(money: Money) -> None:
    money.past(500)
    money.mode = "warn"
    ask(money)
    assert [(row["action"], row["outcome"]) for row in money.rows()] == [("refuse", "withheld")]
    money.mode = "off"
    ask(money)
    assert len(money.rows()) == 1


def test_what_can_t_be_told_refuses_only_if_the_file_says_so(money: Money) -> None:
    money.up("L11", sku=None, run_id="untold")
    ask(money)
    money.budgets(month_usd=100, refuse_unknown=True)
    with pytest.raises(Failure, match="not told: no price of L11's machine"):
        ask(money)


def test_budgets_that_can_t_be_read_refuse(money: Money) -> None:
    money.budgets(month_usd="a lot")
    with pytest.raises(Failure, match=r"the budgets can't be read: .*budgets.yaml:1: month_usd"):
        ask(money)


# The run that was cut


def test_a_run_that_was_cut_fails_with_the_guard_s_reason(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    with (
        pytest.raises(Failure) as caught,
        told_when_cut(money.warehouse, target="aks", lab="L06", run_id="run-1"),
    ):
        money.tick()
        raise ClusterError("the lease on lab-06 is gone")
    said = str(caught.value.description)
    assert said.startswith("the budget guard has cut this run, for the budget of L06: ok → cut: 1.58 of 1.00 USD spent")
    assert said.endswith("It noticed by: the lease on lab-06 is gone")


def test_a_run_that_loads_another_run_s_stack_fails_with_it_too(money: Money) -> None:
    """As with `hold_minutes`: the run that was marked is the one that has the lease."""
    with (
        pytest.raises(Failure, match="the budget guard has cut this run"),
        told_when_cut(money.warehouse, target="aks", lab="L06", run_id="a later run"),
    ):
        mark = run_mark_row(target="aks", recorded_at=datetime.now(UTC))
        money.publish("run_marks", mark, "cut")
        raise ConnectionRefusedError


def test_a_run_that_fails_for_another_reason_says_that_one(money: Money) -> None:
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.tick()
    with (
        pytest.raises(ClusterError, match="a pod crashed"),
        told_when_cut(money.warehouse, target="aks", lab="L06", run_id="the next run"),
    ):
        raise ClusterError("a pod crashed")


def test_a_run_that_was_cut_does_not_speak_for_its_lab_and_has_still_been_paid_for(money: Money) -> None:
    earlier, later = money.now - timedelta(days=1), money.now - timedelta(hours=2)
    for run_id, at in (("good", earlier), ("run-1", later)):
        where = {"target": "aks", "run_id": run_id, "session_id": f"s-{run_id}", "engine": "vllm", "time_scale": 1.0}
        real = {"provenance": "measured", "recorded_at": at, "model_range": None}
        times = {"started_at": at, "ended_at": at + timedelta(minutes=1)}
        money.publish("load_stages", stage_row(**where, **real, **times), "ramp")
    latest = "SELECT run_id FROM latest_run"
    assert money.warehouse.query(latest) == [{"run_id": "run-1"}]
    money.budgets(lab_usd=1)
    money.up("L06", hours=3)
    money.tick()
    assert money.warehouse.query(latest) == [{"run_id": "good"}]
    shown = money.warehouse.query("SELECT run_id, latest, invalid_reason FROM run_overview ORDER BY run_id")
    assert [(one["run_id"], one["latest"], one["invalid_reason"] is None) for one in shown] == [
        *[("good", True, True), ("run-1", False, False)],
    ]
    [paid] = money.warehouse.query("SELECT sum(usd) AS usd FROM session_cost WHERE run_id = 'run-1'")
    assert near(paid["usd"], 3 * 0.526)


# The command line


@pytest.fixture
def labs(money: Money, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    own_environment(monkeypatch, money.warehouse.data_dir)
    monkeypatch.setenv("LABS_TARGET", "aks")
    monkeypatch.setenv("LABS_BUDGETS", str(money.folder / "budgets.yaml"))

    def get_resources(settings: Deployment) -> dict[str, object]:
        return {
            "cluster": money.cluster,
            "node_pools": money.pools,
            "billing": PriceSheetBilling(region=settings.region),
            "gpu_switch": build.gpu_switch(settings),
            "budget_guard": build.budget_guard(settings),
        }

    monkeypatch.setitem(build.RESOURCES, "aks", get_resources)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_labs_budget_shows_every_budget_and_what_follows(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets(month_usd=10, labs={"L11": 100})
    money.past(9, lab="L11")
    result = labs("budget")
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "warn" in lines["month"] and "refusal at 10.00" in lines["month"]
    assert "ok" in lines["L11"] and "warning at 80.00" in lines["L11"]
    assert "the guard may warn, and refuse new GPU leases (LABS_BUDGET_GUARD=refuse)" in result.stdout
    shown = json.loads(labs("budget", "--json").stdout)
    assert [(one["budget"], one["spent_usd"], one["state"]) for one in shown["budgets"]] == [
        *[("month", 9.0, "warn"), ("L11", 9.0, "ok")],
    ]


def test_labs_budget_without_one_says_how_to_set_one(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets()
    result = labs("budget")
    assert (result.exit_code, "no budget is set" in result.stdout, "LABS_BUDGETS" in result.stdout) == (0, True, True)


def test_labs_budget_with_a_wrong_file_is_one_line(money: Money, labs: Callable[..., Result]) -> None:
    money.budgets(month_usd=-3)
    assert "budgets.yaml:1: month_usd: " in refused(labs("budget"), 1)
    money.budgets(month_usd="foo")
    assert "month_usd: expected an amount in USD, e.g. 500, but found 'foo'\n" in refused(labs("budget"), 1)


def test_labs_budget_without_its_file_names_the_variable(money: Money, labs: Callable[..., Result]) -> None:
    (money.folder / "budgets.yaml").unlink()
    said = refused(labs("budget"), 1)
    assert f"LABS_BUDGETS: {money.folder}/budgets.yaml:1: " in said
    assert said.endswith("is not a file; copy lab_pipelines/budgets.yaml\n")


def test_labs_budget_decisions_tells_what_was_decided(money: Money, labs: Callable[..., Result]) -> None:
    assert "no decision is on record" in labs("budget", "decisions").stdout
    money.past(85)
    money.tick()
    result = labs("budget", "decisions")
    assert result.exit_code == 0, result.output
    assert "ok → warn: 85.00 of 100.00 USD spent (85 %)" in result.stdout
    [row] = json.loads(labs("budget", "decisions", "--json").stdout)
    assert (row["state"], row["spent_usd"]) == ("warn", 85.0)


def test_labs_gpu_up_is_refused_too(money: Money, labs: Callable[..., Result]) -> None:
    money.pools.put(node_pool("t4", count=0))
    money.past(101)
    assert "t4 gets no GPU, for the budget of the month: " in refused(labs("gpu", "up", T4), 1)
    assert money.left()[1] == {"t4": 0}
    money.budgets(month_usd=1000)
    assert labs("gpu", "up", T4).exit_code == 0
