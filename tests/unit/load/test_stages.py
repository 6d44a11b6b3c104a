"""When a stage may end."""

from __future__ import annotations

import math

from streaming_load.plan import Stage
from streaming_load.stages import ClosedWatch, OpenWatch

from tests.support.load_plans import gets


def watch(finished: int = 0) -> ClosedWatch:
    stage = Stage(stage=2, users=8, per_wall_s=None, hold_wall_s=10, min_requests=3, max_hold_wall_s=30)
    running = ClosedWatch(stage, started_at=100.0)
    for _ in range(finished):
        running.request_finished(sent_at=101.0)
    return running


def test_a_stage_holds_its_time_however_many_requests_finish() -> None:
    assert watch(finished=50).end(109.9) is None
    assert watch(finished=50).end(110.0) == "held"


def test_a_stage_waits_for_its_requests_beyond_its_hold() -> None:
    running = watch(finished=2)
    assert running.end(120.0) is None
    running.request_finished(sent_at=119.0)
    assert running.end(120.0) == "held"


def test_a_request_of_the_stage_before_does_not_count() -> None:
    running = watch(finished=2)
    running.request_finished(sent_at=99.9)
    assert (running.finished, running.end(120.0)) == (2, None)


def test_at_its_longest_hold_a_stage_ends_without_its_requests() -> None:
    assert watch(finished=2).end(130.0) == "longest hold"


def test_the_next_change_is_the_next_moment_at_which_time_alone_could_end_the_stage() -> None:
    assert watch().next_change(104.0) == 6.0
    assert watch().next_change(110.0) == 20.0
    assert watch().next_change(130.0) == math.inf


def test_the_line_says_how_far_the_stage_is() -> None:
    assert watch(finished=2).line(109.44, position="3/5") == "stage 3/5 · 8 users · 2/3 requests · 9.4 s"


def rate(*, per_wall_s: float = 2.0, min_requests: int = 3) -> OpenWatch:
    """A rate that holds 10 s: by default twenty requests are its sample."""
    stage = Stage(1, None, per_wall_s, hold_wall_s=10, min_requests=min_requests, max_hold_wall_s=30)
    return OpenWatch(gets("rate", stage), stage, started_at=100.0)


def test_a_rates_stage_ends_when_every_request_of_its_sample_has_ended() -> None:
    running = rate()
    for number in range(19):
        running.request_finished(stage=1, number=number)
    assert running.end(125.0) is None, "the twentieth may be the one that a stalled server holds up"
    running.request_finished(stage=1, number=19)
    assert running.end(109.9) is None
    assert running.end(110.0) == "held"


def test_requests_beyond_the_sample_and_those_of_another_stage_end_nothing() -> None:
    running = rate()
    for number in range(19):
        running.request_finished(stage=1, number=number)
    running.request_finished(stage=1, number=20)
    running.request_finished(stage=0, number=19)
    assert (running.finished, running.end(125.0)) == (19, None)
    assert running.end(130.0) == "longest hold"


def test_a_slow_rate_goes_on_until_it_has_offered_enough_requests() -> None:
    running = rate(per_wall_s=0.2, min_requests=3)  # due after 2.5, 7.5 and 12.5 s
    for number in range(3):
        running.request_finished(stage=1, number=number)
    assert running.end(112.4) is None
    assert running.end(112.5) == "held"
    assert running.next_change(104.0) == 8.5


def test_a_burst_ends_with_its_last_request() -> None:
    stage = Stage(0, 4, None, hold_wall_s=0, min_requests=4, max_hold_wall_s=30)
    running = OpenWatch(gets("burst", stage), stage, started_at=100.0)
    for number in (3, 1, 0):
        running.request_finished(stage=0, number=number)
    assert running.end(101.0) is None
    running.request_finished(stage=0, number=2)
    assert running.end(101.0) == "held"
    assert running.line(101.0, position="1/1") == "stage 1/1 · burst of 4 · 4/4 requests · 1.0 s"
    assert rate().line(101.0, position="1/1") == "stage 1/1 · 2 requests/s · 0/20 requests · 1.0 s"
