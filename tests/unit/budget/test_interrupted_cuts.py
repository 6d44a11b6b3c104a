"""A cut that is interrupted or joined half-way: by a daemon that dies, another one, the run itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from lab_pipelines.sensors.budget_guard import Watch, tick
from tests.support.guarded_money import Clocked, Money, near
from tests.support.node_pools import FilePools


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
