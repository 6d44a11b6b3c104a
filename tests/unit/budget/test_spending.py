"""What the budget guard reads as spent: sessions that are up and that are over, bills, leases, and nodes of nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import CATALOG_DIR, load_catalog
from lab_pipelines.lanes import ClosedSession
from resources import spending
from resources.ownership import BY_HAND, EXPIRES_LABEL, LEASE_LABEL, RUN_LABEL
from tests.support.guarded_money import T4_USD, Clocked, Money, near
from tests.support.node_costs import node_cost
from tests.support.node_pools import T4, node_pool
from tests.support.rows.decisions import gpu_decision_row
from tests.support.rows.money import billed
from tests.support.rows.sessions import event_row, node_time_row, session_row


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
    assert near(money.spend().closed_usd, float(node_cost(ClosedSession.from_row(row), T4_USD))), "as lanes.py has it"


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
