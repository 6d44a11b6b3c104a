"""A run that was cut: what it fails with, and what its rows still count for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from dagster import Failure

from assets.budget import told_when_cut
from resources.cluster import ClusterError
from tests.support.guarded_money import Money, near
from tests.support.rows.decisions import run_mark_row
from tests.support.rows.load import stage_row


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
