"""When a stage of the ramp may end."""

from __future__ import annotations

import math

from streaming_load.plan import Stage
from streaming_load.stages import StageWatch


def watch(finished: int = 0) -> StageWatch:
    stage = Stage(stage=2, users=8, hold_wall_s=10, min_requests=3, max_hold_wall_s=30)
    running = StageWatch(stage, started_at=100.0)
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
