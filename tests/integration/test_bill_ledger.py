"""From Azure's answer to billed rows: nothing edited, nothing twice, nothing lost, and a run continues another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, RunRequest, SkipReason, build_schedule_context, materialize
from typer.testing import CliRunner, Result

from assets.bill import bill
from lab_pipelines import build
from lab_pipelines.bill import Window
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.cli import app
from lab_pipelines.deployment import REPO_ROOT, ClusterSettings, Deployment, DeploymentError
from lab_pipelines.report.read import read_report
from lab_pipelines.schedules import daily_bill
from resources.bill_ledger import BillLedger, BillStoppedError, Told
from resources.billing import PriceSheetBilling
from resources.billing_azure import AzureBilling
from resources.call_limit import CallLimit
from resources.cost_query import AZURE_LIMITS, RETRY_HEADERS
from resources.labs import Labs
from tests.support.azure_cost import AzureCost, BillingOverLoopback, Clock, machines
from tests.support.command_line import own_environment
from tests.support.rows.decisions import gpu_decision_row
from tests.support.rows.money import cost_row
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import node_time_row, session_row
from tests.support.warehouses import publish_run, warehouse_in

DAY = date(2026, 3, 2)  # of `lab_run`
NOW = datetime(2026, 3, 4, 9, tzinfo=UTC)
QPU = RETRY_HEADERS[0]


class Place:
    """A warehouse with one run of L06 on aks, a bill, and a clock for both."""

    def __init__(self, folder: Path, azure: AzureCost, clock: Clock) -> None:
        self.azure, self.clock = azure, clock
        self.warehouse = warehouse_in(folder)
        publish_run(self.warehouse, lab_run(target="aks"))
        limit = CallLimit(folder / "calls.json", AZURE_LIMITS, clock=clock, sleep=clock.sleep)
        self.billing = BillingOverLoopback.to(azure, folder, limit)
        self.ledger = BillLedger(self.warehouse, "aks", clock=lambda: clock.now)
        self.said = list[str]()

    def ask(self, first: date = DAY, last: date = DAY, *, within_s: float = 3600) -> int:
        """How many windows were answered."""
        return len(self.ledger.ask(self.billing, first, last, within_s=within_s, progress=self.said.append))

    def reconcile(self, first: date = DAY, last: date = DAY) -> Told:
        return self.ledger.reconcile(first, last, progress=self.said.append)

    def later(self, **length: float) -> None:
        self.clock.pass_time(timedelta(**length))

    def rows(self, table: str) -> list[dict[str, Any]]:
        return self.warehouse.query(f"FROM {table} ORDER BY recorded_at")

    def cost(self, state: str) -> list[dict[str, Any]]:
        return self.warehouse.query("FROM session_cost WHERE state = ?", [state])

    def billed_usd(self) -> Decimal:
        return sum((row["usd"] for row in self.cost("billed")), Decimal())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    clock = Clock(NOW)
    with AzureCost(now=clock) as azure:
        yield Place(tmp_path, azure, clock)


def test_a_session_is_billed_and_both_states_stand_side_by_side(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    told = place.reconcile()
    assert (told.billed, told.waiting, told.unplaced) == (1, 0, {})
    assert place.billed_usd() == Decimal("0.40")
    estimate = {row["part"]: row["usd"] for row in place.cost("estimated")}
    assert {row["part"] for row in place.cost("billed")} == set(estimate)
    rows = [row for row in place.rows("cost_records") if row["x_state"] == "billed"]
    assert sum(row["x_delta_usd"] for row in rows) == Decimal("0.40") - sum(estimate.values())
    assert {row["x_bill_state"] for row in rows} == {"provisional"}
    assert {row["x_billed_at"] for row in rows} == {NOW}


def test_lake_sheet_and_report_say_the_bill_to_the_cent(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    place.reconcile()
    sheet = {row["state"]: row for row in place.rows("finops_sheet") if row["stage"] is None}
    assert sheet["billed"]["usd"] == Decimal("0.40")
    parts = ("serve_usd", "idle_usd", "cold_start_usd", "failed_usd")
    assert sum(sheet["billed"][part] for part in parts) == Decimal("0.40")
    report = read_report(place.warehouse, load_catalog(), now=NOW)
    assert sum(row["usd"] for row in report.money["by_lab"]) == Decimal("0.40")
    assert report.totals[0]["usd"] == Decimal("0.40")
    [section] = report.sections
    assert sum(row["usd"] for row in section.cost) == Decimal("0.40")
    assert section.overview["usd"] == Decimal("0.40")
    billed = section.overview["usd_per_1k_tokens"]
    estimated = sheet["estimated"]["usd_per_1k_tokens"]
    assert billed == pytest.approx(estimated * 0.40 / float(sheet["estimated"]["usd"]))


def test_a_sheet_that_a_kill_left_out_comes_with_the_next_reconciliation(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    with monkeypatch.context() as patched:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patched.setattr("resources.bill_ledger.bring_up_to_date", killed)
        with pytest.raises(KeyboardInterrupt):
            place.reconcile()
    assert place.billed_usd() == Decimal("0.40")
    assert {row["state"] for row in place.rows("finops_sheet")} == {"estimated"}
    assert place.reconcile().rows == 0, "the costs are there"
    assert {row["state"] for row in place.rows("finops_sheet")} == {"estimated", "billed"}


def test_the_same_bill_again_adds_an_ask_and_nothing_else(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    place.reconcile()
    before = {table: len(place.rows(table)) for table in ("bill_days", "bill_shares", "cost_records", "bill_asks")}
    assert place.ask() == 0  # asked for less than four hours ago
    place.later(hours=5)
    assert place.ask() == 1
    assert place.reconcile().rows == 0
    after = {table: len(place.rows(table)) for table in before}
    assert after == before | {"bill_asks": before["bill_asks"] + 1}


def test_a_bill_that_changes_adds_rows_and_edits_none(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    place.reconcile()
    first = place.rows("cost_records")
    place.later(hours=24)
    place.azure.charge(DAY, machines("t4"), "0.55", tag="l06")
    place.ask()
    place.reconcile()
    assert [row["cost"] for row in place.rows("bill_days")] == [Decimal("0.40"), Decimal("0.55")]
    assert place.rows("cost_records")[: len(first)] == first
    assert place.billed_usd() == Decimal("0.55")
    [share] = place.rows("bill_shares_current")
    assert share["cost"] == Decimal("0.55")


def test_a_charge_that_azure_takes_back_is_a_row_too(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.azure.charge(DAY, "/disk", "0.10", tag="l06")
    place.ask()
    place.reconcile()
    assert place.billed_usd() == Decimal("0.50")
    place.azure.charges.clear()
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.later(hours=24)
    place.ask()
    place.reconcile()
    assert place.billed_usd() == Decimal("0.40")
    assert [row["cost"] for row in place.rows("bill_current") if row["resource_id"] == "/disk"] == [None]


def test_late_days_are_gaps_until_azure_has_them(place: Place) -> None:
    place.azure.late = timedelta(hours=40)
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    told = place.reconcile()
    assert (told.billed, told.gaps) == (0, [DAY])
    assert told.outcomes[0].waiting == f"Azure has no data of {DAY} yet"
    [day] = place.warehouse.query("FROM bill_by_day")
    assert (day["cost"], day["lines"], day["asked_at"]) == (None, 0, NOW)
    place.later(hours=12)
    place.ask()
    assert place.reconcile().billed == 1


def test_a_day_that_grows_is_billed_anew_until_it_settles(place: Place) -> None:
    for hours, cost in ((0, "0.10"), (5, "0.30"), (24 * 40, "0.40")):
        place.azure.charge(DAY, machines("t4"), cost, tag="l06")
        place.later(hours=hours)
        place.ask()
        place.reconcile()
    billed = [row for row in place.rows("cost_records") if row["x_state"] == "billed"]
    assert len({row["recorded_at"] for row in billed}) == 3
    assert billed[-1]["x_bill_state"] == "settled"
    assert place.billed_usd() == Decimal("0.40")


def test_untagged_machines_are_placed_by_the_pool_that_the_sensor_saw(place: Place) -> None:
    place.azure.charge(DAY, machines("t4"), "0.40")
    place.ask()
    assert place.reconcile().unplaced == {"USD": Decimal("0.40")}
    row = gpu_decision_row(target="aks")
    place.warehouse.publish("gpu_decisions", [row], target="aks", lab="all", run_id=row["run_id"])
    told = place.reconcile()
    assert (told.billed, told.unplaced) == (1, {})


def test_the_currency_of_the_bill_is_kept(place: Place) -> None:
    place.azure.currency, place.azure.usd_per_unit = "EUR", None
    place.azure.charge(DAY, machines("t4"), "0.40", tag="l06")
    place.ask()
    place.reconcile()
    rows = [row for row in place.rows("cost_records") if row["x_state"] == "billed"]
    assert sum(row["BilledCost"] for row in rows) == Decimal("0.40")
    assert {(row["BillingCurrency"], row["x_billed_usd"], row["x_delta_usd"]) for row in rows} == {("EUR", None, None)}
    assert {row["usd"] for row in place.cost("billed")} == {None}


def test_what_was_answered_stays_and_the_next_run_continues_behind_it(place: Place) -> None:
    first = DAY - timedelta(days=61)
    for day in Window(first, DAY).days:
        place.azure.charge(day, machines("t4"), "0.40", tag="l06")
    place.ask(first, first + timedelta(days=30))
    place.azure.storm = [{QPU: "7200"}]
    with pytest.raises(
        BillStoppedError, match=r"only at 2026-03-04 11:00:00 UTC.*0 of 1 windows are answered and kept"
    ):
        place.ask(first, DAY, within_s=60)
    assert place.reconcile(first, DAY).never_asked == [first + timedelta(days=n) for n in range(31, 62)]
    place.later(hours=2)
    calls = len(place.azure.calls)
    assert place.ask(first, DAY) == 1  # the other 31 days alone
    assert len(place.azure.calls) == calls + 1
    assert place.reconcile(first, DAY).never_asked == []
    assert place.azure.violations == []


def test_sums_are_the_same_from_azure_to_the_last_view(place: Place) -> None:
    for number in range(40):
        place.azure.charge(DAY, machines(f"p{number}"), Decimal(number) / 7, tag=["l06", "l07", None, "x"][number % 4])
    place.ask()
    told = place.reconcile()
    azure = sum(
        (Decimal(repr(float(cost))).quantize(Decimal("1e-9")) for cost in place.azure.charges.values()), Decimal()
    )
    one = "SELECT sum(cost) AS cost FROM "
    assert place.warehouse.query(f"{one} bill_current")[0]["cost"] == azure
    assert place.warehouse.query(f"{one} bill_by_day")[0]["cost"] == azure
    assert place.warehouse.query(f"{one} bill_shares_current")[0]["cost"] == azure
    assert place.billed_usd() + told.unplaced["USD"] == azure


def hold(place: Place, name: str, lab: str, *spans: tuple[datetime, datetime]) -> None:
    """A closed session that held a node of pool t4 in each of `spans`, estimated at 1 USD an hour."""
    run = {"target": "aks", "lab": lab, "run_id": f"run-{name}"}
    of_whom = {**run, "session_id": name, "engine": "vllm", "provenance": "measured", "time_scale": 1.0}
    begin, end = spans[0][0], spans[-1][1]
    times = {"requested_at": begin, "ready_at": begin, "released_at": end}
    session = session_row(
        **of_whom, **times, cold_start_s=0.0, first_token_s=None, held_s=(end - begin).total_seconds()
    )
    held = [node_time_row(session, pool="t4", held_from=start, held_until=until) for start, until in spans]
    hours = Decimal(str(sum((until - start).total_seconds() for start, until in spans) / 3600))
    cost = cost_row(**of_whom, x_pool="t4", ListCost=hours, PricingQuantity=hours)
    for table, rows in {"stack_sessions": [session], "node_time": held, "cost_records": [cost]}.items():
        place.warehouse.publish(table, rows, **run)


def by_session(place: Place, question: str) -> dict[str, Decimal]:
    return {row["session_id"]: row["cost"] for row in place.warehouse.query(f"{question} GROUP BY session_id")}


def assert_billed_as_shared(place: Place, expected: dict[str, str]) -> None:
    amounts = {name: Decimal(cost) for name, cost in expected.items()}
    of_shares = "FROM bill_shares_current WHERE session_id IS NOT NULL AND cost <> 0"
    assert by_session(place, f"SELECT session_id, sum(cost) AS cost {of_shares}") == amounts
    of_costs = "FROM cost_current WHERE x_state = 'billed' AND BilledCost <> 0"
    assert by_session(place, f"SELECT session_id, sum(BilledCost) AS cost {of_costs}") == amounts


def o_clock(hour: float) -> datetime:
    """Of DAY, and from 24 on of the days after it."""
    return datetime.combine(DAY, datetime.min.time(), UTC) + timedelta(hours=hour)


def test_a_narrow_window_bills_everyone_whose_shares_it_changes(place: Place) -> None:
    next_day = DAY + timedelta(days=1)
    place.later(hours=48)
    hold(place, "a", "L07", (o_clock(9), o_clock(10)))
    for day in (DAY, next_day):
        place.azure.charge(day, machines("t4"), "4")
    place.ask(DAY, next_day)
    place.reconcile()
    assert_billed_as_shared(place, {"a": "4"})
    hold(place, "b", "L08", (o_clock(23), o_clock(25)))
    place.later(minutes=1)
    told = place.reconcile(next_day, next_day)
    assert_billed_as_shared(place, {"a": "2", "b": "6"})
    assert [one.session.session_id for one in told.outcomes] == ["b"], "the others held nothing on the day asked for"


def test_whoever_shares_days_through_others_is_billed_as_well(place: Place) -> None:
    days = [DAY + timedelta(days=n) for n in range(3)]
    place.later(hours=72)
    for day in days:
        place.azure.charge(day, machines("t4"), "4")
    place.ask(days[0], days[-1])
    hold(place, "a", "L07", (o_clock(9), o_clock(10)))
    place.reconcile(days[0], days[0])
    hold(place, "b", "L08", (o_clock(23), o_clock(25)))
    hold(place, "c", "L09", (o_clock(47), o_clock(49)))
    place.later(minutes=1)
    place.reconcile(days[-1], days[-1])
    assert_billed_as_shared(place, {"a": "2", "b": "4", "c": "6"})


def test_a_session_s_spans_of_other_days_count_as_well(place: Place) -> None:
    """It held two spans, which scaling cut at midnight, and each of them is of one day."""
    days = [DAY, DAY + timedelta(days=1)]
    place.later(hours=72)
    for day in days:
        place.azure.charge(day, machines("t4"), "4")
    place.ask(*days)
    hold(place, "a", "L07", (o_clock(22), o_clock(24)), (o_clock(24), o_clock(25)))
    place.reconcile(days[-1], days[-1])
    assert_billed_as_shared(place, {"a": "8"})


def test_a_line_that_moves_to_another_lab_is_nobody_else_s_any_more(place: Place) -> None:
    place.later(hours=24)
    hold(place, "a", "L07", (o_clock(9), o_clock(10)))
    hold(place, "b", "L08", (o_clock(9), o_clock(10)))
    place.azure.charge(DAY, machines("t4"), "4")
    place.ask()
    place.reconcile()
    assert_billed_as_shared(place, {"a": "2", "b": "2"})
    place.later(hours=5)
    place.azure.charges.clear()
    place.azure.charge(DAY, machines("t4"), "4", tag="l08")
    place.ask()
    place.reconcile()
    assert_billed_as_shared(place, {"b": "4"})
    place.later(hours=5)
    place.ask()
    assert place.reconcile().rows == 0, "asking again doesn't make nothing news"


def test_a_killed_run_loses_nothing_and_its_calls_count(tmp_path: Path) -> None:
    """A run is killed while Azure thinks; the next one asks once that call can't be under way any more."""
    script = """
import sys
from datetime import date
from resources.call_limit import CallLimit
from resources.cost_query import AZURE_LIMITS
from pathlib import Path
limit = CallLimit(Path(sys.argv[1]), AZURE_LIMITS)
for _ in range(3):
    limit.end(limit.take("scope", lasts_s=90, until=1e12, waiting=print))
limit.take("scope", lasts_s=90, until=1e12, waiting=print)
print("asked", flush=True)
import time
time.sleep(60)
"""
    file = tmp_path / "calls.json"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(file)], cwd=REPO_ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPO_ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    clock = Clock(datetime.now(UTC))
    began = clock.now
    limit = CallLimit(file, AZURE_LIMITS, clock=clock, sleep=clock.sleep)
    limit.take("scope", lasts_s=90, until=1e12, waiting=lambda _: None)
    assert timedelta(seconds=80) < clock.now - began < timedelta(seconds=91)


# --- Dagster ---


def materialized(place: Place, billing: Any, **options: Any) -> Any:
    resources = {"labs": Labs(target="aks"), "billing": billing, "warehouse": place.warehouse}
    return materialize(
        [bill], resources=resources, instance=DagsterInstance.ephemeral(), raise_on_error=False, **options
    )


def test_the_asset_skips_a_target_without_a_bill_in_one_line(place: Place) -> None:
    result = materialized(place, PriceSheetBilling())
    assert result.success
    [event] = result.get_asset_materialization_events()
    assert event.materialization.metadata["skipped"].value == "target aks has no bill: its costs stay estimates"
    assert place.azure.seen == []


def test_the_asset_asks_for_two_months_and_reconciles(tmp_path: Path) -> None:
    with AzureCost() as azure:
        place = Place(tmp_path, azure, Clock(NOW))
        yesterday = datetime.now(UTC).date() - timedelta(days=1)
        for day in Window(yesterday - timedelta(days=61), yesterday).days:
            azure.charge(day, machines("system"), "2.5")
        billing = BillingOverLoopback.to(azure, tmp_path)
        result = materialized(place, billing)
        assert result.success
        [event] = result.get_asset_materialization_events()
        assert event.materialization.metadata["unplaced"].value == "155.000000000 USD"
        assert len(place.rows("bill_asks")) == 2
        azure.denied.add("Microsoft.CostManagement/query/action")
        assert materialized(place, billing).success  # nothing is due
        assert azure.violations == []


def test_a_labs_own_run_asks_for_no_bill(place: Place) -> None:
    result = materialized(place, place.billing, tags={"dagster/partition": "L06"})
    assert result.success
    [event] = result.get_asset_materialization_events()
    assert "a run of L06 asks for no bill" in str(event.materialization.metadata["skipped"].value)
    assert place.azure.seen == []


def test_the_asset_fails_with_azures_reason(place: Place) -> None:
    place.azure.denied.add("Microsoft.CostManagement/query/action")
    result = materialized(place, place.billing)
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "Cost Management Reader" in str(failure.step_failure_data.error)


def test_the_schedule_asks_only_where_there_is_a_bill(place: Place) -> None:
    context = build_schedule_context()
    assert isinstance(daily_bill(context, billing=PriceSheetBilling()), SkipReason)
    assert isinstance(daily_bill(context, billing=place.billing), RunRequest)


def test_the_schedules_job_is_the_bill_alone_and_runs_on_every_target(tmp_path: Path) -> None:
    defs = build.build_defs(target="local", deployment=Deployment(data_dir=tmp_path))
    [schedule] = defs.get_repository_def().schedule_defs
    assert schedule.default_status.value == "RUNNING"
    result = defs.get_job_def(schedule.job_name).execute_in_process(instance=DagsterInstance.ephemeral())
    assert result.success
    assert [event.asset_key.path for event in result.get_asset_materialization_events() if event.asset_key] == [
        ["bill"]
    ]


@pytest.mark.parametrize("target", ["local", "rehearsal", "kubernetes"])
def test_only_aks_has_a_bill(target: Any, tmp_path: Path) -> None:
    assert not build.RESOURCES[target](Deployment(target=target, data_dir=tmp_path))["billing"].gives_bill


def test_the_bill_is_of_the_group_that_aks_makes_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    cluster = ClusterSettings(subscription_id="s", resource_group="labs", aks_cluster="labs-aks")
    made = AzureBilling.of(Deployment(target="aks", data_dir=tmp_path, cluster=cluster, region="westeurope"))
    assert made.bill_scope == "subscriptions/s/resourceGroups/MC_labs_labs-aks_westeurope"
    named = ClusterSettings.from_env({"AZURE_SUBSCRIPTION_ID": "s", "LABS_AKS_NODE_RESOURCE_GROUP": "nodes"})
    assert AzureBilling.of(Deployment(target="aks", cluster=named)).bill_scope == "subscriptions/s/resourceGroups/nodes"
    with pytest.raises(DeploymentError, match="set AZURE_SUBSCRIPTION_ID"):
        AzureBilling.of(Deployment(target="aks"))


# --- labs cost ---

Command = Callable[..., Result]


@pytest.fixture
def today(tmp_path: Path) -> Iterator[AzureCost]:
    with AzureCost() as azure:
        yield azure


@pytest.fixture
def labs(today: AzureCost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line with an `aks` target whose bill is the double's."""
    own_environment(monkeypatch, str(tmp_path / "data"))
    billing = BillingOverLoopback.to(today, tmp_path)

    def get_resources(settings: Deployment) -> dict[str, object]:
        guards = {"gpu_switch": build.gpu_switch(settings), "budget_guard": build.budget_guard(settings)}
        return {"cluster": None, "node_pools": None, "billing": billing, **guards}

    monkeypatch.setitem(build.RESOURCES, "aks", get_resources)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def run_days_ago(folder: Path, days: int) -> date:
    """A run of L06 on aks so many days ago; its day."""
    ago = datetime.now(UTC).date() - timedelta(days=days)
    moved = datetime.combine(ago, datetime.min.time(), UTC) - datetime.combine(DAY, datetime.min.time(), UTC)
    tables = lab_run(target="aks")
    for table in tables.values():
        for row in table:
            row |= {name: value + moved for name, value in row.items() if isinstance(value, datetime)}
    publish_run(warehouse_in(folder), tables)
    return ago


def test_reconcile_and_bill_on_the_command_line(labs: Command, today: AzureCost, tmp_path: Path) -> None:
    day = run_days_ago(tmp_path, 3)
    today.charge(day, machines("t4"), "0.40", tag="l06")
    today.charge(day, "/ip", "0.12")
    done = labs("cost", "reconcile", "--from", f"{day}", "--to", f"{day}")
    assert done.exit_code == 0, done.output
    assert "asking for window 1 of 1" in done.output
    assert "L06" in done.output
    assert "0.40 USD" in done.output
    assert "provisional" in done.output
    assert "0.12 USD of the bill is nobody's" in done.output

    shown = labs("cost", "bill", "--from", f"{day - timedelta(days=1)}", "--to", f"{day}", "--json")
    assert shown.exit_code == 0, shown.output
    before, of_day = json.loads(shown.output)
    assert (before["state"], before["cost"]) == ("never asked for", None)
    assert (of_day["state"], of_day["cost"], of_day["currency"]) == ("provisional", 0.52, "USD")
    again = labs("cost", "reconcile", "--from", f"{day}", "--to", f"{day}", "--json")
    told = json.loads(again.output)
    assert (told["labs"][0]["lab"], told["labs"][0]["bill"], told["gaps"]) == ("L06", {"USD": 0.4}, [])
    assert len(today.seen) == 1


def test_gaps_and_sessions_that_wait_are_named(labs: Command, tmp_path: Path) -> None:
    day = run_days_ago(tmp_path, 3)
    done = labs("cost", "reconcile", "--from", f"{day}", "--to", f"{day}")
    assert done.exit_code == 0, done.output
    assert f"Azure has no data of {day}" in done.output
    assert f"not billed: Azure has no data of {day} yet" in done.output
    shown = labs("cost", "bill", "--from", f"{day}", "--to", f"{day}")
    assert "gap: asked for, no data" in shown.output


def test_a_no_of_azures_ends_in_one_line_and_1(labs: Command, today: AzureCost, tmp_path: Path) -> None:
    day = run_days_ago(tmp_path, 3)
    today.denied.add("Microsoft.CostManagement/query/action")
    done = labs("cost", "reconcile", "--from", f"{day}", "--to", f"{day}")
    assert done.exit_code == 1
    assert "give this identity the role Cost Management Reader" in done.output
    assert "Traceback" not in done.output
    assert f"{day} was never asked for" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "--from yesterday: expected a day, e.g. 2026-03-01"),
        (["--from", "2026-03-02", "--to", "2026-03-01"], "2026-03-02 comes after 2026-03-01"),
        (["--to", "2999-01-01"], "2999-01-01 is in the future"),
        (["--target", "local"], "target local has no bill"),
    ],
)
def test_wrong_calls_are_refused_before_anything_is_asked(
    labs: Command, today: AzureCost, arguments: list[str], said: str
) -> None:
    done = labs("cost", "reconcile", *arguments)
    assert done.exit_code == 2
    assert said in done.output
    assert today.seen == []
