"""In virtual time nothing is lost, nothing runs backwards, and a leap is the steps that it stands for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.engine.core import Engine, Limits
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import hardware, model

COST = StepCost(hardware("T4"), model("microsoft/Phi-3-mini-4k-instruct"))
LONGEST = 256


@dataclass
class Load:
    limits: Limits
    requests: list[tuple[int, int, float, tuple[Any, ...]]]
    """Tokens in, tokens out, arrival, keys of shared blocks."""


@dataclass
class Outcome:
    events: list[list[float]] = field(default_factory=list)
    firsts: list[float | None] = field(default_factory=list)
    preemptions: int = 0
    hits: int = 0
    back: int = 0
    ended_s: float = 0.0


def run(load: Load, *, leaps: bool = True) -> Outcome:
    numbers = random.Random(5)
    drafts = load.limits.draft_tokens
    engine: Engine[Tracked] = Engine(
        load.limits, COST.step_s, (lambda request: numbers.randint(0, drafts)) if drafts else None
    )
    replica: Replica[Tracked] = Replica(engine, COST, start_s=0.0, leaps=leaps)
    requests = [Tracked(i, o, arrived_s=at, hashes=keys) for i, o, at, keys in load.requests]
    for request in requests:
        replica.submit(request)
    ended: list[Tracked] = []
    outcome, now_s = Outcome(), 0.0
    while len(ended) < len(requests):
        for request in replica.advance(now_s + 0.7):
            assert request not in ended, "served twice"
            ended.append(request)
        assert replica.now_s >= now_s, "time ran backwards"
        now_s = replica.now_s
        assert engine.free_blocks + engine.used_blocks == load.limits.kv_blocks
        assert engine.free_blocks >= 0 and engine.offloaded_blocks <= load.limits.offload_blocks
    assert engine.free_blocks == load.limits.kv_blocks and not engine.has_work
    for request in requests:
        times = replica.event_times(request)
        assert times == sorted(times)
        if not drafts:
            assert len(times) == request.output_tokens, "every token, once"
        else:
            assert 1 <= len(times) <= request.output_tokens
        # Nobody's first token comes before its own prompt could be computed.
        alone_s = COST.step_s(_prefill(request)) if request.cache_hit_tokens == 0 else 0.0
        chunks = -(-request.prompt_tokens // load.limits.max_num_batched_tokens)
        assert times[0] - request.arrived_s >= alone_s * (0.999 if chunks == 1 else 0.0)
        outcome.events.append(times)
        outcome.firsts.append(request.first_token_s)
        outcome.preemptions += request.preemptions
        outcome.hits += request.cache_hit_tokens
        outcome.back += request.offload_hit_tokens
        assert request.cache_hit_tokens % BLOCK_TOKENS == 0
    outcome.ended_s = replica.now_s
    return outcome


def _prefill(request: Tracked) -> Any:
    from lab_pipelines.engine.roofline import Batch

    n = request.prompt_tokens
    return Batch(0, 0, n, n * n / 2, 0, 1, 1)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    requests, at_s = [], 0.0
    shared = draw(st.integers(0, 5))
    for number in range(draw(st.integers(1, 12))):
        prompt = draw(st.integers(1, 180))
        keys = tuple(("shared", n) for n in range(min(shared, prompt // BLOCK_TOKENS)))
        own = tuple((number, n) for n in range(len(keys), prompt // BLOCK_TOKENS))
        at_s += draw(st.sampled_from([0.0, 0.001, 0.05, 2.0]))
        requests.append((prompt, draw(st.integers(1, LONGEST - prompt)), at_s, (*keys, *own)))
    drafts = draw(st.sampled_from([0, 0, 0, 3]))
    seqs = draw(st.integers(1, 10))
    limits = Limits(
        kv_blocks=draw(st.integers(LONGEST // BLOCK_TOKENS + 1, 50)),
        max_model_len=LONGEST,
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs * (1 + drafts) + 1, 200)),
        prefix_caching=draw(st.booleans()),
        offload_blocks=draw(st.sampled_from([0, 0, 6, 100])),
        draft_tokens=drafts,
        static_batching=draw(st.sampled_from([False, False, True])),
    )
    return Load(limits, requests)


@settings(max_examples=250, deadline=None)
@given(loads())
def test_every_request_is_served_once_whatever_the_options(load: Load) -> None:
    run(load)


@settings(max_examples=150, deadline=None)
@given(loads())
def test_leaps_give_what_single_steps_give(load: Load) -> None:
    by_leaps, by_steps = run(load), run(load, leaps=False)
    assert by_leaps.preemptions == by_steps.preemptions
    assert [len(times) for times in by_leaps.events] == [len(times) for times in by_steps.events]
    for leapt, stepped in zip(by_leaps.events, by_steps.events, strict=True):
        assert leapt == pytest.approx(stepped, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(loads())
def test_the_same_load_gives_the_same_bytes(load: Load) -> None:
    assert run(load) == run(load)


def steady(**changes: Any) -> Load:
    """Thirty requests that come together and need more blocks than there are."""
    fields: dict[str, Any] = {
        "kv_blocks": 60,
        "max_model_len": LONGEST,
        "max_num_seqs": 30,
        "max_num_batched_tokens": 256,
    }
    keys = tuple(("system", n) for n in range(6))
    return Load(Limits(**{**fields, **changes}), [(112, 128, 0.0, keys)] * 30)


def test_more_memory_never_takes_longer() -> None:
    took = [run(steady(kv_blocks=blocks)).ended_s for blocks in (40, 60, 100, 200, 500)]
    assert took == sorted(took, reverse=True)


def test_a_shared_prefix_is_computed_once() -> None:
    plain, cached = run(steady()), run(steady(prefix_caching=True))
    assert plain.hits == 0
    assert cached.hits >= 25 * 96
    assert cached.ended_s < plain.ended_s


def test_blocks_come_back_from_cpu_memory_instead_of_being_computed() -> None:
    tight: dict[str, Any] = {"kv_blocks": 40, "max_num_seqs": 10}
    again, back = run(steady(**tight)), run(steady(**tight, offload_blocks=400))
    assert again.preemptions > 0 and again.back == 0
    assert back.back > 0


def test_a_static_batch_waits_for_its_last_member() -> None:
    limits: dict[str, Any] = {"kv_blocks": 400, "max_model_len": LONGEST, "max_num_seqs": 4}
    limits["max_num_batched_tokens"] = 256
    requests = [(16, 8 if n % 2 else 200, 0.0, ()) for n in range(8)]
    static = run(Load(Limits(**limits, static_batching=True), requests))
    continuous = run(Load(Limits(**limits), requests))
    assert static.ended_s > 1.3 * continuous.ended_s
    # The second four begin when the first four have all ended.
    assert min(times[0] for times in static.events[4:]) > max(times[-1] for times in static.events[:4])


def test_drafts_that_come_true_save_steps() -> None:
    plain = EngineModel.of(["Qwen/Qwen3-8B-AWQ", "--no-enable-prefix-caching", "--max-num-seqs", "16"], "T4")
    engine: Engine[Tracked] = Engine(
        Limits(**{**vars(plain.limits), "draft_tokens": 4}), plain.cost.step_s, lambda request: 4
    )
    replica: Replica[Tracked] = Replica(engine, plain.cost, start_s=0.0)
    request = Tracked(64, 101, arrived_s=0.0)
    replica.submit(request)
    assert replica.advance(1e6) == [request]
    assert len(replica.event_times(request)) == 1 + 100 // 5, "one for the prompt, then five tokens at a time"


def test_an_idle_engine_is_brought_to_the_time_and_an_arrival_waits_for_its_own() -> None:
    engine: Engine[Tracked] = Engine(Limits(100, LONGEST, 8, 256), COST.step_s)
    replica: Replica[Tracked] = Replica(engine, COST, start_s=10.0)
    assert replica.advance(20.0) == [] and replica.now_s == 20.0
    request = Tracked(16, 4, arrived_s=25.0)
    replica.submit(request)
    assert replica.advance(24.0) == [] and request.state == "new"
    assert replica.advance(60.0) == [request]
    assert 25.0 < replica.event_times(request)[0] < 26.0
