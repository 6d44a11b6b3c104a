"""The scale-to-zero decision: each rule on its own, and what must hold whatever the inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.catalog.loader import SpecError
from lab_pipelines.engine.cold_start import cold_start_plan
from lab_pipelines.gpu_policy import (
    GAPS_KEPT,
    NO_SIGNAL,
    ColdStart,
    Decision,
    History,
    Hold,
    Mode,
    Observation,
    PoolState,
    Rule,
    Signal,
    advance,
    decide,
    decide_tick,
    expected_idle,
    load_policy,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
POLICY = load_policy()
QUIET = Signal(value=0.0, age_s=10.0, reporting=1, expected=1)


def pool(name: str = "t4", **fields: object) -> PoolState:
    usual = PoolState(name, "Standard_NC4as_T4_v3", "User", 1, True, False, False, "Succeeded", Decimal("0.526"))
    return replace(usual, **fields)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def seen(**fields: object) -> Observation:
    """A pool that has been idle for an hour, and that every rule lets go."""
    usual = Observation(
        pool=pool(),
        holds=(),
        requests=QUIET,
        utilisation=QUIET,
        signals_gap=None,
        history=History(seen_at=NOW, count=1, idle_since=ago(3600), changed_at=ago(7200)),
        cold_start=ColdStart(600.0, "measured"),
    )
    return replace(usual, **fields)


def decision(mode: Mode = "on", **fields: object) -> Decision:
    return decide(seen(**fields), policy=POLICY, mode=mode, now=NOW)


def test_a_pool_of_ours_that_was_idle_long_enough_goes_to_zero_and_says_why() -> None:
    found = decision()
    assert (found.action, found.rule, found.idle_for_s) == ("scale_to_zero", "idle", 3600.0)
    assert found.reason == "idle for 3600 s; expected 3600 s more (as long again as it has been idle)"


HELD = (Hold(lab="L06", lease_id="1", until=NOW + timedelta(seconds=1)),)


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("off", {"mode": "off"}),
        ("not_ours", {"pool": pool(ours=False)}),
        ("system_pool", {"pool": pool(mode="System")}),
        ("at_zero", {"pool": pool(count=0)}),
        ("leased", {"holds": HELD}),
        ("changing", {"pool": pool(state="Scaling")}),
        ("autoscaled", {"pool": pool(autoscaled=True)}),
        ("signal_missing", {"requests": NO_SIGNAL}),
        ("signal_missing", {"utilisation": NO_SIGNAL}),
        ("signal_missing", {"requests": replace(QUIET, age_s=POLICY.max_signal_age_s + 1)}),
        ("signal_missing", {"utilisation": replace(QUIET, reporting=1, expected=2)}),
        ("signal_missing", {"requests": replace(QUIET, age_s=-60.0)}),
        ("in_use", {"requests": replace(QUIET, value=1.0)}),
        ("in_use", {"utilisation": replace(QUIET, value=40.0), "requests": NO_SIGNAL}),
        ("not_idle_long_enough", {"history": History(NOW, 1, idle_since=ago(POLICY.idle_for_s - 1))}),
        ("not_idle_long_enough", {"history": History(NOW, 1, idle_since=None)}),
        ("cooling_down", {"history": History(NOW, 1, idle_since=ago(3600), changed_at=ago(POLICY.cooldown_s - 1))}),
        ("cold_start_dearer", {"cold_start": ColdStart(3600.0, "measured")}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_rule_keeps_a_pool_and_names_itself(rule: str, fields: dict[str, object]) -> None:
    found = decision(**fields)  # pyright: ignore[reportArgumentType] - one of them is the mode
    assert (found.action, found.rule) == ("keep", rule)


def test_a_lease_that_is_over_holds_nothing() -> None:
    assert decision(holds=(Hold("L06", "1", NOW),)).action == "scale_to_zero"


def test_a_missing_signal_says_which_one_why_and_what_the_monitoring_answered() -> None:
    found = decision(requests=NO_SIGNAL, signals_gap="Prometheus did not answer within 3 s")
    assert found.reason == "requests: no sample (Prometheus did not answer within 3 s)"


# Hysteresis

BETWEEN = replace(QUIET, value=(POLICY.utilisation.idle_at_most + POLICY.utilisation.busy_at_least) / 2)


def watch(values: Sequence[float], *, every_s: float = 60.0) -> History:
    """The history after the GPU showed `values`, one a tick, the last of them now."""
    history: History | None = History(ago(every_s * len(values)), 1)
    for number, value in enumerate(values, start=1):
        history = advance(
            history,
            pool(),
            QUIET,
            replace(QUIET, value=value),
            policy=POLICY,
            now=ago(every_s * (len(values) - number)),
        )
    assert history is not None
    return history


def test_between_the_thresholds_an_idle_pool_stays_idle_and_a_busy_one_busy() -> None:
    assert watch([0, 0, 3, 3]).idle_since == ago(180)
    assert watch([50, 3, 3, 3]).idle_since is None
    assert watch([50, 3, 0, 3]).idle_since == ago(60)


def test_an_idle_time_ends_with_work_and_its_length_is_remembered() -> None:
    history = watch([0] * 10 + [50])
    assert (history.idle_since, history.gaps_s) == (None, (600.0,))


def test_an_idle_time_that_was_not_watched_throughout_begins_anew_and_teaches_nothing() -> None:
    history = watch([0, 0], every_s=POLICY.max_tick_gap_s + 1)
    assert (history.idle_since, history.gaps_s) == (NOW, ())


def test_missing_data_ends_an_idle_time_without_being_work() -> None:
    history = advance(watch([0] * 10), pool(), NO_SIGNAL, QUIET, policy=POLICY, now=NOW + timedelta(seconds=60))
    assert (history.idle_since, history.gaps_s) == (None, ())


def test_the_time_at_zero_belongs_to_the_idle_time_that_led_there() -> None:
    at_zero = advance(watch([0] * 11), pool(count=0), NO_SIGNAL, NO_SIGNAL, policy=POLICY, now=NOW)
    later = NOW + timedelta(hours=5)
    back = advance(at_zero, pool(count=2), NO_SIGNAL, NO_SIGNAL, policy=POLICY, now=later)
    assert back.gaps_s == (600.0 + 5 * 3600,)
    assert (back.idle_since, back.changed_at, back.count) == (None, later, 2)


def test_a_pool_that_is_seen_for_the_first_time_waits_for_the_cooldown() -> None:
    first = advance(None, pool(), QUIET, QUIET, policy=POLICY, now=NOW)
    assert (first.idle_since, first.changed_at) == (NOW, NOW)


def test_only_the_last_idle_times_are_remembered() -> None:
    assert len(watch([0, 50] * (GAPS_KEPT + 5)).gaps_s) == GAPS_KEPT


# The cold start against the idle time


def test_with_few_former_idle_times_a_pool_is_expected_to_stay_idle_as_long_again() -> None:
    assert expected_idle(700.0, [100.0] * 20, min_gaps=5) == (700.0, "as long again as it has been idle")


def test_with_enough_former_idle_times_the_mean_of_what_was_left_of_the_longer_ones_counts() -> None:
    more_s, source = expected_idle(600.0, [100.0, 700, 800, 900, 1000, 1100], min_gaps=5)
    assert (more_s, source) == (300.0, "mean of 5 former idle times that lasted longer")


def test_a_pool_whose_idle_times_are_short_is_kept_where_an_unknown_one_would_go() -> None:
    short = History(NOW, 1, idle_since=ago(700), changed_at=ago(7200), gaps_s=(720.0,) * 6)
    assert decision(history=short, cold_start=ColdStart(650.0, "measured")).rule == "cold_start_dearer"
    unknown = replace(short, gaps_s=())
    assert decision(history=unknown, cold_start=ColdStart(650.0, "measured")).action == "scale_to_zero"


@given(gap_s=st.integers(1, 3000), cold_s=st.integers(20, 1000))
def test_without_foresight_an_idle_time_costs_at_most_twice_what_foresight_would_have(gap_s: int, cold_s: int) -> None:
    eager, step_s = POLICY.model_copy(update={"idle_for_s": 10.0}), 10
    cost_s = gap_s
    for idle_s in range(step_s, gap_s, step_s):
        history = History(NOW, 1, idle_since=ago(idle_s))
        looked = seen(history=history, cold_start=ColdStart(float(cold_s), "measured"))
        if decide(looked, policy=eager, mode="on", now=NOW).action == "scale_to_zero":
            cost_s = idle_s + cold_s
            break
    assert cost_s <= 2 * min(gap_s, cold_s) + step_s


def test_the_assumed_cold_start_is_the_tables_own() -> None:
    weights_s = 51.75 * 2**30 / 896.2e6
    fixed_s = sum(p.duration_s for p in cold_start_plan("A100-80G", "microsoft/Phi-3-mini-4k-instruct"))
    small_s = sum(p.duration_s for p in cold_start_plan("T4", "microsoft/Phi-3-mini-4k-instruct"))
    assert fixed_s == small_s <= POLICY.assumed_cold_start_s
    assert POLICY.assumed_cold_start_s == pytest.approx(804 + weights_s, abs=10)


# What must hold whatever the inputs are

signals = st.builds(
    Signal,
    value=st.none() | st.sampled_from([0.0, 0.5, 1.0, 3.0, 5.0, 90.0]),
    age_s=st.none() | st.sampled_from([-60.0, 0.0, 30.0, 90.0, 91.0, 1e5]),
    reporting=st.integers(0, 3),
    expected=st.integers(0, 3),
)
# Requests are counted: between none and one there is nothing.
counts = signals.map(lambda one: replace(one, value=None if one.value is None else float(round(one.value))))
states = st.builds(
    PoolState,
    name=st.uuids().map(str),
    vm_size=st.just("Standard_NC4as_T4_v3"),
    mode=st.sampled_from(["User"] * 5 + ["System"]),
    count=st.integers(0, 4),
    ours=st.booleans(),
    autoscaled=st.booleans(),
    spot=st.booleans(),
    state=st.sampled_from(["Succeeded", "Succeeded", "Failed", "Updating", "Scaling", "Deleting", "?"]),
    usd_per_h=st.none() | st.decimals(0, 100, places=3),
)
# Moments on both sides of every length that a rule asks for.
moments = st.sampled_from([-10_000, -3600, -901, -899, -601, -599, -60, 0, 1, 600]).map(
    lambda seconds: NOW + timedelta(seconds=seconds)
)
histories = st.builds(
    History,
    seen_at=st.just(NOW),
    count=st.integers(0, 4),
    idle_since=st.none() | moments,
    changed_at=st.none() | moments,
    gaps_s=st.lists(st.floats(0, 1e5), max_size=8).map(tuple),
)
observations = st.builds(
    Observation,
    pool=states,
    holds=st.lists(st.builds(Hold, st.just("L06"), st.just("1"), moments), max_size=2).map(tuple),
    requests=counts,
    utilisation=signals,
    signals_gap=st.none() | st.just("unreachable"),
    history=histories,
    cold_start=st.builds(ColdStart, st.floats(1, 5000), st.just("measured")),
)
INPUTS = ["pool", "holds", "requests", "utilisation", "history", "cold_start"]
# Draws in which all but one input speak for zero, so that each rule is also tried where it alone decides.
nearly = st.builds(
    lambda name, other: replace(seen(pool=pool(other.pool.name)), **{name: getattr(other, name)}),
    st.sampled_from(INPUTS),
    observations,
)
ready = st.builds(
    lambda name, usd: seen(pool=pool(str(name), usd_per_h=usd)), st.uuids(), st.none() | st.decimals(0, 100, places=3)
)
ticks = st.lists(observations | nearly | ready, max_size=8, unique_by=lambda one: one.pool.name)
modes = st.sampled_from(["off", "dry-run", "on"])


def fresh(signal: Signal) -> bool:
    return (
        signal.value is not None
        and signal.age_s is not None
        and -5 <= signal.age_s <= POLICY.max_signal_age_s
        and signal.reporting >= signal.expected
    )


@settings(max_examples=300)
@given(one=observations | nearly, mode=modes)
def test_whatever_is_not_ours_held_changing_in_use_or_in_doubt_is_kept(one: Observation, mode: Mode) -> None:
    found = decide(one, policy=POLICY, mode=mode, now=NOW)
    if found.action == "keep":
        assert found.rule != "idle"
        return
    assert mode != "off"
    assert one.pool.ours and one.pool.mode == "User" and one.pool.count > 0 and not one.pool.autoscaled
    assert one.pool.state in {"Succeeded", "Failed"}
    assert all(hold.until <= NOW for hold in one.holds)
    assert fresh(one.requests) and fresh(one.utilisation)
    assert one.requests.value == 0
    assert one.utilisation.value is not None and one.utilisation.value < POLICY.utilisation.busy_at_least
    assert one.history.idle_since is not None
    assert (NOW - one.history.idle_since).total_seconds() >= POLICY.idle_for_s
    assert found.expected_idle_s is not None and found.expected_idle_s > one.cold_start.seconds


def test_the_draws_reach_every_rule() -> None:
    rules = set[str]()

    @settings(max_examples=300, database=None, derandomize=True)
    @given(ticks=ticks, mode=modes)
    def walk(ticks: list[Observation], mode: Mode) -> None:
        rules.update(one.rule for one in decide_tick(ticks, policy=POLICY, mode=mode, now=NOW))

    walk()
    assert rules == set(get_args(Rule))


@given(ticks=ticks, mode=modes)
def test_a_tick_never_acts_on_more_pools_than_it_may_and_acts_on_the_dearest(
    ticks: list[Observation], mode: Mode
) -> None:
    found = decide_tick(ticks, policy=POLICY, mode=mode, now=NOW)
    assert [one.observation for one in found] == ticks
    acting = [one for one in found if one.action == "scale_to_zero"]
    assert len(acting) <= POLICY.most_actions_per_tick
    waiting = [one.observation.pool.usd_per_h or 0 for one in found if one.rule == "tick_full"]
    assert all((one.observation.pool.usd_per_h or 0) >= price for one in acting for price in waiting)


@given(ticks=ticks)
def test_a_second_look_after_acting_does_nothing_more_to_those_pools(ticks: list[Observation]) -> None:
    first = decide_tick(ticks, policy=POLICY, mode="on", now=NOW)
    assert first == decide_tick(ticks, policy=POLICY, mode="on", now=NOW)
    done = {one.observation.pool.name for one in first if one.action == "scale_to_zero"}
    after = [replace(one, pool=replace(one.pool, count=0)) if one.pool.name in done else one for one in ticks]
    second = decide_tick(after, policy=POLICY, mode="on", now=NOW)
    assert done.isdisjoint(one.observation.pool.name for one in second if one.action == "scale_to_zero")


# The file


def test_a_policy_that_acts_on_a_single_signal_is_refused_with_its_line(tmp_path: Path) -> None:
    text = Path("lab_pipelines/gpu_policy.yaml").read_text(encoding="utf-8")
    (tmp_path / "one.yaml").write_text(text.replace("min_signals: 2", "min_signals: 1"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"one\.yaml:\d+: min_signals"):
        load_policy(tmp_path / "one.yaml")


def test_thresholds_that_cross_are_refused(tmp_path: Path) -> None:
    text = Path("lab_pipelines/gpu_policy.yaml").read_text(encoding="utf-8")
    (tmp_path / "two.yaml").write_text(text.replace("busy_at_least: 5", "busy_at_least: 1"), encoding="utf-8")
    with pytest.raises(SpecError, match=r"utilisation.*idle_at_most must be below busy_at_least"):
        load_policy(tmp_path / "two.yaml")
