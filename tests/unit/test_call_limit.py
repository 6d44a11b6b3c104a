"""Calls never come closer together than the limits say, whoever makes them, and nobody waits without end."""

from __future__ import annotations

import multiprocessing
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.call_limit import CallLimit, Limit, TurnError
from tests.support.azure_cost import Clock

START = datetime(2026, 3, 20, 12, tzinfo=UTC)
LIMITS = (Limit(4, 60, of_one=True), Limit(6, 60, of_one=False))


def limited(folder: Path, clock: Clock) -> CallLimit:
    return CallLimit(folder / "calls.json", LIMITS, clock=clock, sleep=clock.sleep)


def call(limit: CallLimit, key: str = "one", *, until: float = 10**12, wait_s: float = 0.0) -> None:
    turn = limit.take(key, lasts_s=90, until=until, waiting=lambda _: None)
    limit.end(turn, wait_s=wait_s)


def test_the_fifth_call_waits_until_the_first_is_a_minute_ago(tmp_path: Path) -> None:
    clock = Clock(START)
    limit = limited(tmp_path, clock)
    for _ in range(4):
        call(limit)
    assert clock.now == START
    call(limit)
    assert clock.now == START + timedelta(seconds=60)


def test_all_keys_together_have_a_limit_of_their_own(tmp_path: Path) -> None:
    clock = Clock(START)
    limit = limited(tmp_path, clock)
    for key in ("a", "a", "a", "b", "b", "b"):
        call(limit, key)
    assert clock.now == START
    call(limit, "c")
    assert clock.now == START + timedelta(seconds=60)


def test_a_wait_that_was_asked_for_holds_for_every_key_and_the_next_process(tmp_path: Path) -> None:
    clock = Clock(START)
    call(limited(tmp_path, clock), wait_s=300)
    call(limited(tmp_path, clock), "other")
    assert clock.now == START + timedelta(seconds=300)


def test_a_turn_that_comes_too_late_is_refused_without_waiting(tmp_path: Path) -> None:
    clock = Clock(START)
    limit = limited(tmp_path, clock)
    call(limit, wait_s=300)
    with pytest.raises(TurnError, match="12:05:00") as raised:
        call(limit, until=(START + timedelta(seconds=299)).timestamp())
    assert raised.value.at == START + timedelta(seconds=300)
    assert clock.slept == []


def test_a_call_counts_from_its_end_since_it_may_have_arrived_then(tmp_path: Path) -> None:
    clock = Clock(START)
    limit = limited(tmp_path, clock)
    for _ in range(4):
        turn = limit.take("one", lasts_s=90, until=10**12, waiting=lambda _: None)
        clock.pass_time(timedelta(seconds=10))
        limit.end(turn)
    call(limit)
    assert clock.now == START + timedelta(seconds=10 + 60)


def test_a_call_whose_process_died_counts_from_the_end_of_its_timeout(tmp_path: Path) -> None:
    clock = Clock(START)
    limited(tmp_path, clock).take("one", lasts_s=90, until=10**12, waiting=lambda _: None)
    for _ in range(4):
        call(limited(tmp_path, clock))
    assert clock.now == START + timedelta(seconds=90 + 60)


def test_one_call_is_made_at_a_time(tmp_path: Path) -> None:
    clock = Clock(START)
    limited(tmp_path, clock).take("one", lasts_s=90, until=10**12, waiting=lambda _: None)
    with pytest.raises(TurnError):
        call(limited(tmp_path, clock), "other", until=(START + timedelta(seconds=80)).timestamp())
    call(limited(tmp_path, clock), "other")
    assert clock.now == START + timedelta(seconds=90)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"calls": 3, "not_before": 0}', '{"calls": [{}], "not_before": 0}'])
def test_after_a_damaged_file_as_long_is_waited_as_any_call_could_ask_for(tmp_path: Path, text: str) -> None:
    clock = Clock(START)
    (tmp_path / "calls.json").write_text(text)
    call(limited(tmp_path, clock))
    assert clock.now == START + timedelta(seconds=60)


@settings(deadline=None, max_examples=30)
@given(gaps=st.lists(st.floats(0, 40), min_size=1, max_size=25), keys=st.lists(st.sampled_from("ab"), min_size=25))
def test_whatever_the_gaps_no_window_holds_too_many(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[float], keys: list[str]
) -> None:
    clock = Clock(START)
    limit = limited(tmp_path_factory.mktemp("calls"), clock)
    made = list[tuple[float, str]]()
    for gap, key in zip(gaps, keys, strict=False):
        clock.pass_time(timedelta(seconds=gap))
        turn = limit.take(key, lasts_s=90, until=10**12, waiting=lambda _: None)
        made.append((clock(), key))
        limit.end(turn)
    for at, key in made:
        within = [other for other in made if at - 60 < other[0] <= at]
        assert len(within) <= 6
        assert len([one for one in within if one[1] == key]) <= 4


SHORT = Limit(3, 0.4, of_one=True)


def _calls(file: Path, log: Path, number: int) -> None:
    limit = CallLimit(file, [SHORT])
    for _ in range(number):
        turn = limit.take("one", lasts_s=0.05, until=time.time() + 60, waiting=lambda _: None)
        with log.open("a") as stream:
            stream.write(f"{time.time()}\n")
        limit.end(turn)


def test_processes_share_one_limit_in_real_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_calls, args=(tmp_path / "calls.json", log, 6)) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0]
    made = sorted(map(float, log.read_text().split()))
    assert len(made) == 12
    assert all(later - earlier >= SHORT.within_s for earlier, later in zip(made, made[SHORT.calls :], strict=False))
