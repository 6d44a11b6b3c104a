"""The serving time is split between prompts and answers, and nothing of it is lost."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_pipelines.cost import RequestInterval, StageWindow, split_session
from lab_pipelines.finops_split import NO_TIME, PhaseTime, TimedRequest, phase_times
from lab_pipelines.lanes import ClosedSession
from tests.support.rows.common import REQUESTED_AT

S = 1_000_000
"""Microseconds of a second."""


def request(
    sent: float, first: float | None, ended: float, *, tokens: int | None = 512, failed: bool = False
) -> TimedRequest:
    first_us = None if first is None else round(first * S)
    return TimedRequest(round(sent * S), first_us, round(ended * S), tokens, failed)


def split(*requests: TimedRequest, start: float = 0, end: float = 100) -> Any:
    [time] = phase_times([(round(start * S), round(end * S))], requests)
    return pytest.approx((time.prefill_s, time.decode_s))


def test_a_request_alone_is_read_until_its_first_token_and_written_after_it() -> None:
    assert split(request(0, 2, 10)) == (2, 8)
    [share] = [time.prefill_share for time in phase_times([(0, 100 * S)], [request(0, 2, 10)])]
    assert share == pytest.approx(0.2)


def test_an_instant_is_shared_equally_by_those_who_are_worked_on() -> None:
    # 0-2: the first is read; 2-4: it is written while the second is read; 4-10: both are written.
    assert split(request(0, 2, 10), request(2, 4, 10)) == (2 + 1, 1 + 6)


def test_who_waits_uses_nothing() -> None:
    # The second was sent with the first, and was read in the two seconds before its first token, as the first was.
    assert split(request(0, 2, 10), request(0, 10, 14)) == (2 + 1 + 0, 6 + 1 + 4)


def test_what_all_wait_for_is_to_be_read() -> None:
    # Nobody is worked on from 1 to 8: the second waits for no one, but can't have been read for longer than the first.
    assert split(request(0, 1, 1), request(1, 9, 9)) == (9, 0)


def test_prompts_of_another_length_have_a_time_of_their_own() -> None:
    assert split(request(0, 1, 1, tokens=64), request(10, 20, 20, tokens=4096), request(10, 20, 30, tokens=64)) == (
        1 + 10,
        10,
    )


def test_those_that_failed_take_their_share_and_are_not_served() -> None:
    assert split(request(0, 2, 10), request(0, None, 10, failed=True)) == (1, 4)


def test_a_cut_off_request_without_a_token_was_read_or_waited_until_then() -> None:
    assert split(request(0, None, 10)) == (10, 0)


def test_plain_gets_are_neither_read_nor_written() -> None:
    assert phase_times([(0, 100 * S)], [request(0, 0.1, 10, tokens=None)]) == [NO_TIME]
    assert NO_TIME.prefill_share is None
    assert split(request(0, 2, 10), request(0, 1, 10, tokens=None)) == (1, 4)


def test_only_what_lies_in_a_window_counts() -> None:
    assert split(request(0, 2, 10), start=1, end=5) == (1, 3)
    assert split(request(0, 2, 10), start=20, end=50) == (0, 0)
    assert phase_times([], [request(0, 2, 10)]) == []
    assert phase_times([(0, S)], []) == [NO_TIME]


@st.composite
def requests(draw: st.DrawFn) -> TimedRequest:
    sent = draw(st.integers(0, 90 * S))
    ended = sent + draw(st.integers(0, 60 * S))
    first = draw(st.one_of(st.none(), st.integers(sent, ended)))
    return TimedRequest(sent, first, ended, draw(st.sampled_from([64, 512])), draw(st.booleans()))


@given(sent=st.lists(requests(), max_size=8), cuts=st.lists(st.integers(0, 100 * S), max_size=3))
def test_prompts_and_answers_sum_to_what_cost_calls_serving_in_every_stage(
    sent: list[TimedRequest], cuts: list[int]
) -> None:
    edges = sorted({0, *cuts, 100 * S})
    windows = list(pairwise(edges))

    def at(us: int) -> datetime:
        return REQUESTED_AT + timedelta(microseconds=us)

    held = ClosedSession(at(0), at(0), at(100 * S), 1, 1.0, 0.0, 0.0)
    parts = split_session(
        held,
        [StageWindow("s", n, at(start), at(end)) for n, (start, end) in enumerate(windows)],
        [RequestInterval(at(r.sent_us), at(r.finished_us), "timeout" if r.failed else "ok") for r in sent],
        usd_per_node_hour=Decimal(1),
    )
    serving = {part.stage: float(part.node_hours) * 3600 for part in parts if part.part == "serve"}
    times = phase_times(windows, sent)
    for stage, time in enumerate(times):
        assert min(time.prefill_s, time.decode_s) >= 0
        assert time.prefill_s + time.decode_s == pytest.approx(serving.get(stage, 0.0), abs=2e-5)
    [whole] = phase_times([(0, 100 * S)], sent)
    total = sum(times, NO_TIME)
    assert (total.prefill_s, total.decode_s) == pytest.approx((whole.prefill_s, whole.decode_s), abs=1e-5)
    assert isinstance(total, PhaseTime)
