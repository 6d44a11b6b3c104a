"""A replayed load follows the load generator's rules, loses no request, and is the same with the same seed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.engine.roofline import Batch
from lab_pipelines.rehearsal.load import FIRST_START_S, START_EVERY_S, TRANSIT_S, Replay, Ticket
from tests.support.load_plans import traced
from tests.support.worlds import START_S, completion, rates, replay, users, world_with

SHARED_PREFIX = ["microsoft/Phi-3-mini-4k-instruct", "--dtype", "half", "--max-model-len", "4096"]
SCARCE = ("--gpu-memory-utilization", "0.6", "--max-model-len", "1024")
"""Leaves about a hundred blocks: requests preempt one another."""
LLAMA = ["meta-llama/Meta-Llama-3-8B-Instruct", "--max-model-len", "4096", "--no-enable-prefix-caching"]


def seen(tickets: list[Ticket], walked: Replay) -> list[tuple[Any, ...]]:
    return [
        (t.request_id, t.shape, t.scheduled_s, t.sent_s, t.finished_s, t.outcome, tuple(walked.event_times(t)))
        for t in tickets
    ]


def test_a_user_sends_when_its_last_answer_has_come_and_has_never_two_requests_open(tmp_path: Path) -> None:
    _, tickets, _ = replay(world_with(tmp_path), users(3, hold_s=60.0))
    assert {ticket.user_index for ticket in tickets} == {0, 1, 2}
    for index in range(3):
        own = [ticket for ticket in tickets if ticket.user_index == index]
        assert [ticket.number for ticket in own] == list(range(len(own)))
        for before, after in pairwise(own):
            assert before.finished_s == after.scheduled_s == after.sent_s


def test_new_users_begin_one_after_the_other_and_their_indices_are_never_used_again(tmp_path: Path) -> None:
    _, tickets, applied = replay(world_with(tmp_path), users(2, 1, 4, hold_s=30.0))
    first = {ticket.user_index: ticket for ticket in reversed(tickets)}
    assert set(first) == {0, 1, 2, 3, 4}
    begins = [first[index].sent_s for index in (2, 3, 4)]
    assert begins == pytest.approx(
        [applied[2].started_s + FIRST_START_S + number * START_EVERY_S for number in range(3)], abs=1e-6
    )
    # The second stage has one user less: its request is cut where the first stage ends, and it sends no other.
    [cut] = [ticket for ticket in tickets if ticket.user_index == 1 and ticket.outcome == "cut"]
    assert cut.finished_s == applied[0].ended_s


def test_stages_follow_one_another_and_end_by_the_generator_s_own_rule(tmp_path: Path) -> None:
    _, tickets, applied = replay(world_with(tmp_path), users(1, 2, hold_s=1.0, least=4))
    assert [one.why for one in applied] == ["held", "held"]
    for one in applied:
        ended = [t for t in tickets if t.sent_s >= one.started_s and t.outcome == "ok" and t.finished_s < one.ended_s]  # pyright: ignore[reportOptionalOperand]
        assert 4 <= len(ended) <= 5
    assert applied[0].ended_s == applied[1].started_s
    _, _, slow = replay(world_with(tmp_path / "slow"), users(1, hold_s=1.0, least=100, longest_s=30.0))
    assert slow[0].why == "longest hold" and slow[0].ended_s - slow[0].started_s == pytest.approx(30.0, abs=0.01)


def test_what_a_user_sends_next_misses_the_step_that_is_under_way(tmp_path: Path) -> None:
    # Two users out of phase: whoever sends again waits for the other's step before its prompt is taken in.
    walked, tickets, _ = replay(world_with(tmp_path), users(1, 2, hold_s=120.0))
    alone = [ticket for ticket in tickets if ticket.user_index == 0 and ticket.stage.stage == 0]
    beside = [ticket for ticket in tickets if ticket.user_index == 0 and ticket.stage.stage == 1]
    ttft_s = [median(walked.event_times(t)[0] - t.scheduled_s for t in own[1:-1]) for own in (alone, beside)]
    step_s = 0.037  # of one sequence of this model on a T4
    assert ttft_s[1] - ttft_s[0] == pytest.approx(step_s, abs=0.004)
    assert walked.event_times(alone[0])[0] - alone[0].scheduled_s > TRANSIT_S


def test_beside_a_stack_that_runs_faster_the_client_takes_longer(tmp_path: Path) -> None:
    ttft_s = []
    for scale in (1.0, 5.0):
        world = world_with(tmp_path / str(scale))
        world.client_scale = scale
        walked, tickets, _ = replay(world, users(1))
        ttft_s.append(walked.event_times(tickets[0])[0] - tickets[0].scheduled_s)
    assert ttft_s[1] - ttft_s[0] == pytest.approx(4 * TRANSIT_S, abs=1e-5)


def test_a_burst_is_sent_at_once_and_ends_with_its_last_answer(tmp_path: Path) -> None:
    _, tickets, applied = replay(world_with(tmp_path), users(12, hold_s=0.0, least=12), profile="burst")
    assert {ticket.sent_s for ticket in tickets} == {START_S}
    assert [ticket.user_index for ticket in tickets] == list(range(12))
    assert {ticket.outcome for ticket in tickets} == {"ok"}
    last_s = max(ticket.finished_s for ticket in tickets if ticket.finished_s)
    assert applied[0].ended_s == pytest.approx(last_s, abs=0.001)


def test_a_rate_sends_by_its_schedule_and_what_is_sent_to_keep_it_up_does_not_count(tmp_path: Path) -> None:
    _, tickets, applied = replay(world_with(tmp_path), rates(2.0), profile="rate")
    assert [ticket.scheduled_s - START_S for ticket in tickets] == pytest.approx(
        [(number + 0.5) / 2.0 for number in range(len(tickets))], abs=1e-6
    )
    assert sum(ticket.counted for ticket in tickets) == 40 < len(tickets)
    assert all(ticket.outcome == "ok" for ticket in tickets if ticket.counted)
    assert all(ticket.user_index is None for ticket in tickets)
    assert applied[0].ended_s > START_S + 20.0


def test_what_is_due_while_too_many_are_open_waits_and_none_is_left_out(tmp_path: Path) -> None:
    _, tickets, _ = replay(world_with(tmp_path), rates(4.0, longest_s=40.0), profile="rate", max_in_flight=2)
    late_s = [ticket.sent_s - ticket.scheduled_s for ticket in tickets if ticket.sent_s is not None]
    assert len(late_s) == len(tickets) and max(late_s) > 10.0
    moments = sorted(
        [(t.sent_s, 1) for t in tickets if t.request] + [(t.finished_s, -1) for t in tickets if t.request],
        key=lambda moment: (moment[0], moment[1]),
    )
    opened = [sum(change for _, change in moments[: end + 1]) for end in range(len(moments))]
    assert max(opened) == 2
    assert {t.error for t in tickets if t.request is None} == {"the load ended before it was sent"}


def test_a_request_that_takes_too_long_is_a_timeout_and_its_user_backs_off(tmp_path: Path) -> None:
    walked, tickets, _ = replay(world_with(tmp_path), users(1), completion(512, 400, timeout_wall_s=2.0))
    first, second, third = tickets[:3]
    assert first.finished_s is not None and second.finished_s is not None
    assert first.outcome == second.outcome == "timeout"
    assert first.finished_s == pytest.approx(START_S + FIRST_START_S + 2.0, abs=1e-6)
    assert second.scheduled_s - first.finished_s == pytest.approx(0.1, abs=1e-6)
    assert third.scheduled_s - second.finished_s == pytest.approx(0.2, abs=1e-6)
    events = walked.event_times(first)
    assert first.output_tokens == len(events) > 40 and events[-1] <= first.finished_s


@pytest.mark.parametrize(("expect", "outcome"), [(200, "http_error"), (400, "ok")])
def test_a_prompt_that_is_too_long_is_refused_at_once(tmp_path: Path, expect: int, outcome: str) -> None:
    _, tickets, _ = replay(world_with(tmp_path), users(1, hold_s=1.0, least=3), completion(4096, 64, expect=expect))
    ended = [ticket for ticket in tickets if ticket.outcome != "cut"]
    assert {(ticket.outcome, ticket.http_status) for ticket in ended} == {(outcome, 400)}
    assert ended[0].finished_s == pytest.approx(ended[0].scheduled_s + TRANSIT_S, abs=1e-6)
    assert (ended[0].error is None) == (outcome == "ok")
    assert ended[0].error is None or "more than the maximum of 4096" in ended[0].error


def test_a_truncated_prompt_is_as_long_as_what_is_kept(tmp_path: Path) -> None:
    _, tickets, _ = replay(world_with(tmp_path), users(1), completion(4096, 64, truncate_to=1024))
    assert {(t.outcome, t.input_tokens) for t in tickets if t.outcome != "cut"} == {("ok", 1024)}


def test_a_prefix_that_requests_share_is_computed_once_and_no_other_part_is_found(tmp_path: Path) -> None:
    world = world_with(tmp_path, base=SHARED_PREFIX)
    _, tickets, _ = replay(world, users(1), completion(512, 16, shared_prefix_tokens=300))
    hits = [ticket.request.cache_hit_tokens for ticket in tickets if ticket.request is not None]
    assert hits[0] == 0 and set(hits[1:-1]) == {300 // 16 * 16}
    apart = world_with(tmp_path / "apart", base=SHARED_PREFIX)
    _, tickets, _ = replay(apart, users(1), completion(512, 16))
    assert {ticket.request.cache_hit_tokens for ticket in tickets if ticket.request is not None} == {0}


def test_a_trace_is_replayed_with_its_lengths_and_what_its_ids_share_is_computed_once(tmp_path: Path) -> None:
    shared = [(0.0, 1000, 16, (0, 1)), (20.0, 1500, 20, (0, 1, 2)), (40.0, 700, 24, (0, 3)), (60.0, 700, 8, (4, 5))]
    walked = Replay(traced(tmp_path, shared), world_with(tmp_path, base=SHARED_PREFIX), progress=lambda line: None)
    tickets, [applied] = walked.run()
    assert [(t.scheduled_s - START_S, t.asked, t.outcome) for t in tickets] == [
        (at_s, (tokens_in, tokens_out), "ok") for at_s, tokens_in, tokens_out, _ in shared
    ]
    assert [(t.input_tokens, t.output_tokens) for t in tickets] == [t.asked for t in tickets]
    assert [t.request.cache_hit_tokens for t in tickets if t.request] == [0, 992, 512, 0], "whole blocks of 16"
    last_s = max(ticket.finished_s for ticket in tickets if ticket.finished_s)
    assert applied.why == "held" and applied.ended_s == pytest.approx(last_s, abs=0.001)


def test_a_trace_that_isn_t_over_at_the_longest_hold_is_cut(tmp_path: Path) -> None:
    plan = traced(tmp_path, [(0.0, 500, 8), (5.0, 500, 900), (9.0, 500, 8)], longest_s=8.0)
    tickets, [applied] = Replay(plan, world_with(tmp_path), progress=lambda line: None).run()
    assert [ticket.outcome for ticket in tickets] == ["ok", "cut"]
    assert applied.why == "longest hold"


def test_drafts_come_true_more_often_for_numbers_than_for_prose(tmp_path: Path) -> None:
    speculation = ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}']
    took_s, events = {}, {}
    for text in ("prose", "code"):
        world = world_with(tmp_path / text, *speculation, gpu="A100-80G", base=LLAMA)
        walked, tickets, _ = replay(world, users(1, least=5), completion(256, 200, text=text))
        took_s[text] = median((t.finished_s or 0) - t.scheduled_s for t in tickets if t.outcome == "ok")
        events[text] = median(len(walked.event_times(t)) for t in tickets if t.outcome == "ok")
        assert {t.output_tokens for t in tickets if t.outcome == "ok"} == {200}
    assert took_s["code"] < took_s["prose"] and events["code"] < events["prose"] < 200


def test_two_replays_with_one_seed_are_the_same(tmp_path: Path) -> None:
    speculation = ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4}']

    def walk(folder: str, seed: int) -> list[tuple[Any, ...]]:
        world = world_with(tmp_path / folder, *speculation, seed=seed)
        walked, tickets, _ = replay(world, users(2, 5))
        return seen(tickets, walked)

    assert walk("a", 1) == walk("b", 1) != walk("c", 2)


@settings(max_examples=60, deadline=None)
@given(
    profile=st.sampled_from(["ramp", "burst", "rate"]),
    loads=st.lists(st.integers(1, 24), min_size=1, max_size=3),
    tokens_in=st.integers(1, 900),
    tokens_out=st.integers(1, 60),
    timeout_s=st.sampled_from([0.5, 3.0, 600.0]),
    arguments=st.sampled_from([(), ("--max-num-seqs", "4"), SCARCE]),
)
def test_no_request_is_lost_or_served_twice_and_tokens_are_conserved(
    profile: Any, loads: list[int], tokens_in: int, tokens_out: int, timeout_s: float, arguments: tuple[str, ...]
) -> None:
    with TemporaryDirectory() as folder:
        world = world_with(Path(folder), *arguments)
        stages = rates(*loads, hold_s=3.0, longest_s=9.0) if profile == "rate" else users(*loads, hold_s=3.0)
        shape = completion(tokens_in, tokens_out, timeout_wall_s=timeout_s)
        walked, tickets, applied = replay(world, stages, shape, profile=profile)
        engine = world.engine
        assert engine is not None
        alone_s = engine.model.cost.step_s(Batch(0, 0, tokens_in, 0.5 * tokens_in**2, 0, 1, 1))
        assert Counter(ticket.request_id for ticket in tickets).most_common(1)[0][1] == 1
        assert [one.stage for one in applied] == stages
        for ticket in tickets:
            assert ticket.outcome in ("ok", "timeout", "cut")
            assert ticket.sent_s is not None and ticket.finished_s is not None
            assert ticket.scheduled_s <= ticket.sent_s <= ticket.finished_s
            times = walked.event_times(ticket)
            assert times == sorted(times) and len(times) <= tokens_out
            if ticket.outcome == "ok":
                assert len(times) == tokens_out and times[-1] == ticket.finished_s
            if times and ticket.request is not None:
                assert times[0] - ticket.sent_s >= 0.999 * (alone_s + TRANSIT_S)
        # Everything is over: what the engine held is free again.
        assert not engine.replica.engine.has_work and engine.replica.engine.used_blocks == 0
        finished = [line.said for line in world.log if line.said.finished_reason != "abort"]
        assert len({said.request_id for said in finished}) == len(finished)
        assert sum(ticket.outcome == "ok" for ticket in tickets) <= len(finished)
