"""A policy over recorded history: what it saves, what its cold starts cost, whom it kills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.gpu_history import of_decisions, of_sessions
from lab_pipelines.gpu_policy import ColdStart, PoolState, Signal, load_policy
from lab_pipelines.gpu_replay import Look, Series, replay
from tests.support.rows.decisions import gpu_decision_row
from tests.support.rows.load import request_row
from tests.support.rows.measures import sample_row
from tests.support.rows.sessions import session_row

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
POLICY = load_policy().model_copy(update={"cooldown_s": 0.0})
EAGER = POLICY.model_copy(update={"idle_for_s": 60.0})
POOL = PoolState("t4", "Standard_NC4as_T4_v3", "User", 2, True, False, False, "Succeeded", Decimal("1.0"))
COLD = ColdStart(600.0, "measured")


def looks(use: str, *, labs: str = "", every_s: int = 60) -> list[Look]:
    """One look per letter: `b`usy, `i`dle, `?` nothing known, `0` no nodes. `labs`: L where L06 held the pool."""
    found = list[Look]()
    for number, letter in enumerate(use):
        value = {"b": 1.0, "i": 0.0, "?": None, "0": None}[letter]
        requests = Signal(value, None if value is None else 5.0, 1, 1)
        count = 0 if letter == "0" else 2
        pool = PoolState("t4", POOL.vm_size, "User", count, True, False, False, "Succeeded", Decimal("1.0"))
        held = ("L06",) if labs[number : number + 1] == "L" else ()
        utilisation = Signal(value and 90.0, requests.age_s, 1, 1)
        found.append(Look(START + timedelta(seconds=every_s * number), pool, requests, utilisation, held, COLD))
    return found


def replayed(use: str, *, policy: Any = POLICY, scale: float = 1.0, **fields: Any) -> Any:
    [found] = replay([Series("t4", "measured", scale, looks(use, **fields))], policy)
    return found


def test_a_pool_that_is_always_used_saves_nothing() -> None:
    found = replayed("b" * 61)
    assert (found.actions, found.saved_node_hours, found.net_saved_usd) == (0, 0.0, 0)
    assert (found.node_hours, float(found.usd)) == (pytest.approx(2), pytest.approx(1))


def test_a_forgotten_pool_is_saved_from_the_break_even_on() -> None:
    found = replayed("b" + "i" * 120)
    # Idle from minute 1; after 600 s the rest is expected to be no longer than a cold start, after 660 s it is.
    assert (found.actions, found.cold_starts) == (1, 0)
    assert found.saved_node_hours == pytest.approx(2 * (120 - 12) / 60)
    assert found.net_saved_usd is not None and round(found.net_saved_usd, 6) == Decimal("1.8")


def test_use_after_zero_costs_a_cold_start() -> None:
    found = replayed("b" + "i" * 60 + "b" * 60)
    assert (found.actions, found.cold_starts) == (1, 1)
    assert found.cold_start_node_hours == 2 * 600 / 3600
    saved = Decimal(61 - 12) / 60 - Decimal(600) / 3600
    assert found.net_saved_usd is not None and abs(found.net_saved_usd - saved) < Decimal("1e-6")


def test_an_idle_time_just_past_the_break_even_loses_money() -> None:
    found = replayed("b" + "i" * 13 + "b" * 60)
    assert found.net_saved_usd is not None and found.net_saved_usd < 0


def test_a_lab_that_held_the_idle_pool_is_killed_but_for_its_lease() -> None:
    found = replayed("b" + "i" * 60, labs="L" * 61)
    assert [(one.lab, one.at) for one in found.killed] == [("L06", START + timedelta(minutes=12))]
    assert replayed("b" + "i" * 60, labs="L" * 5).killed == ()


def test_a_lab_that_takes_the_pool_later_brings_it_back_and_is_not_killed() -> None:
    found = replayed("b" + "i" * 60, labs=" " * 30 + "L" * 31)
    assert found.cold_starts == 1
    assert [one.lab for one in found.killed] == ["L06"], "and then it is killed, since it does nothing for long"


def test_what_was_not_known_is_not_saved() -> None:
    assert replayed("b" + "?" * 120).actions == 0
    assert replayed("b" + "i" * 120, every_s=300).node_hours == 0.0, "holes between looks are neither paid nor saved"


def test_a_pool_at_zero_costs_nothing_and_its_return_is_no_cold_start_of_ours() -> None:
    found = replayed("b" + "0" * 60 + "b" * 10)
    assert (found.actions, found.cold_starts) == (0, 0)
    assert found.node_hours == 2 * 11 / 60 - 2 / 60


def test_another_policy_gives_another_answer() -> None:
    short = "b" + "i" * 8 + "b" * 5
    assert replayed(short).actions == 0
    never = POLICY.model_copy(update={"idle_for_s": 1e6})
    assert replayed("b" + "i" * 120, policy=never).actions == 0


def test_a_stack_that_runs_faster_than_the_wall_clock_is_counted_in_its_own_time() -> None:
    plain, fast = replayed("b" + "i" * 120), replayed("b" + "i" * 120, scale=60.0, every_s=1)
    assert (fast.actions, fast.node_hours) == (plain.actions, plain.node_hours)
    assert abs(fast.saved_node_hours - plain.saved_node_hours) < 1e-9


def test_a_machine_without_a_price_is_counted_in_hours() -> None:
    free = PoolState("x", "Unknown", "User", 1, True, False, False, "Succeeded", None)
    found = [Look(one.at, free, one.requests, one.utilisation, (), COLD) for one in looks("b" + "i" * 120)]
    [done] = replay([Series("x", "measured", 1.0, found)], POLICY)
    assert (done.usd, done.net_saved_usd, done.saved_node_hours) == (None, None, pytest.approx(108 / 60))


# From the warehouse


def test_rows_of_the_sensor_become_looks_one_for_each_tick() -> None:
    idle = {"requests": 0.0, "utilisation_percent": 0.0, "idle_for_s": 60.0, "expected_idle_s": 60.0}
    zero = {"action": "scale_to_zero", "rule": "idle"}
    rows = [gpu_decision_row(tick_at=START + timedelta(minutes=n), held_by=[], **idle) for n in range(60)]
    rows += [
        gpu_decision_row(tick_at=START + timedelta(hours=1), outcome=said, **idle, **zero) for said in ("asked", "done")
    ]
    [series] = of_decisions(rows)
    assert (series.name, len(series.looks), series.provenance) == ("t4", 61, "modelled")
    assert series.looks[0].cold_start.seconds == 640.5
    [found] = replay([series], EAGER.model_copy(update={"cold_start_margin": 1.0}))
    assert found.actions == 1
    assert found.net_saved_usd is not None and found.net_saved_usd > 0


def test_a_session_becomes_looks_whose_requests_are_those_in_flight() -> None:
    session = session_row(time_scale=1.0, released_at=START + timedelta(minutes=5), ready_at=START, requested_at=START)
    served = request_row(sent_at=START + timedelta(seconds=70)) | {"finished_at": START + timedelta(seconds=130)}
    samples = [sample_row(sampled_at=START + timedelta(seconds=90), value=77.0, measure="gpu_utilisation")]
    [series] = of_sessions([session], [served], samples, policy=POLICY, sheet=load_prices(), region="eastus")
    assert [look.requests.value for look in series.looks] == [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert [look.utilisation.value for look in series.looks] == [None, None, 77.0, None, None, None]
    assert {look.labs for look in series.looks} == {("L06",)}
    assert series.looks[0].pool.usd_per_h == Decimal("0.526")
