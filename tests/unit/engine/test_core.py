"""What the scheduler must never do, for any load: lose, invent, or run time backwards. And a few exact schedules."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.engine import tables
from lab_pipelines.engine.core import ContextOverflowError, Engine, Limits, Request
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.roofline import Batch, StepCost

MAX_MODEL_LEN = 256
COST = StepCost(tables.hardware("T4"), tables.model("microsoft/Phi-3-mini-4k-instruct"))


class Traced(Request):
    """A request whose emissions are counted by the test itself."""

    __slots__ = ("aborts_at_step", "arrives_at_step", "arrives_s", "emitted", "finished_s", "first_s", "name")

    def __init__(self, name: int, prompt: int, output: int, arrives: int, aborts: int | None = None) -> None:
        super().__init__(prompt, output)
        self.name = name
        self.arrives_at_step = arrives
        self.aborts_at_step = aborts
        self.arrives_s = 0.0
        self.emitted = 0
        self.first_s: float | None = None
        self.finished_s: float | None = None


@dataclass
class History:
    now_s: float = 0.0
    steps: list[tuple[float, Batch, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    preemptions: int = 0


def drive(limits: Limits, requests: list[Traced]) -> History:
    """Run all of them to their end, checking after every step what must hold after every step."""
    engine: Engine[Traced] = Engine(limits, COST.step_s)
    history, index = History(), 0
    pending = sorted(requests, key=lambda request: request.arrives_at_step)
    while pending or engine.has_work:
        while pending and (pending[0].arrives_at_step <= index or not engine.has_work):
            pending[0].arrives_s = history.now_s
            engine.add(pending.pop(0))
        for request in requests:
            if request.aborts_at_step == index:
                held = engine.held_blocks(request) if request.state in ("prefilling", "decoding") else 0
                free, alive = engine.free_blocks, request.state in ("waiting", "prefilling", "decoding")
                assert engine.abort(request) is alive
                assert engine.free_blocks == free + held
        index += 1
        if not engine.has_work:
            continue
        step = engine.step()
        assert step.duration_s > 0
        history.now_s += step.duration_s
        emitting = [*engine.decoding, *step.finished]
        assert len(set(emitting)) == len(emitting) == step.batch.decodes + len(step.prefilled) == step.batch.sampled
        for request in emitting:
            request.emitted += 1
            request.first_s = request.first_s or history.now_s
        for request in step.finished:
            assert request.finished_s is None, "finished twice"
            request.finished_s = history.now_s
        check_state(engine, requests, limits, step.batch)
        history.preemptions += len(step.preempted)
        history.steps.append(
            (
                step.duration_s,
                step.batch,
                tuple(request.name for request in step.finished),
                tuple(request.name for request in step.preempted),
            )
        )
        assert index < 100_000, "no end in sight"
    assert engine.free_blocks == limits.kv_blocks
    return history


def check_state(engine: Engine[Traced], requests: list[Traced], limits: Limits, batch: Batch) -> None:
    running = [*engine.decoding, *([engine.prefilling] if engine.prefilling else [])]
    assert sum(engine.held_blocks(request) for request in running) == engine.used_blocks <= limits.kv_blocks
    assert len(running) == engine.running <= limits.max_num_seqs
    assert batch.decodes + batch.prefill <= limits.max_num_batched_tokens
    # Every request is in exactly one place.
    places = [*running, *engine.waiting]
    alive = [request for request in requests if request.state in ("waiting", "prefilling", "decoding")]
    assert sorted(request.name for request in places) == sorted(request.name for request in alive)
    for request in requests:
        assert engine.generated_tokens(request) == request.emitted


@st.composite
def loads(draw: st.DrawFn) -> tuple[Limits, list[Traced]]:
    requests = []
    for name in range(draw(st.integers(1, 14))):
        prompt = draw(st.integers(1, 180))
        output = draw(st.integers(1, MAX_MODEL_LEN - prompt))
        arrives = draw(st.integers(0, 120))
        aborts = draw(st.one_of(st.none(), st.none(), st.integers(arrives, arrives + 150)))
        requests.append(Traced(name, prompt, output, arrives, aborts))
    seqs = draw(st.integers(1, 12))
    chunked = draw(st.booleans())
    limits = Limits(
        kv_blocks=draw(st.integers(MAX_MODEL_LEN // BLOCK_TOKENS, 60)),
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(seqs, 200)) if chunked else MAX_MODEL_LEN,
        chunked_prefill=chunked,
    )
    return limits, requests


@settings(max_examples=300, deadline=None)
@given(loads())
def test_every_request_ends_once_with_all_its_tokens_and_every_block_comes_back(
    load: tuple[Limits, list[Traced]],
) -> None:
    limits, requests = load
    history = drive(limits, requests)
    for request in requests:
        if request.state == "finished":
            assert request.emitted == request.output_tokens
        else:
            assert request.state == "aborted"
            assert request.emitted < request.output_tokens
    tokens = sum(batch.prefill for _, batch, _, _ in history.steps)
    assert tokens == sum(request.computed_prefill for request in requests)


@settings(max_examples=100, deadline=None)
@given(loads())
def test_the_first_token_never_comes_before_its_prompt_could_be_computed(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    drive(limits, requests)
    for request in requests:
        if request.first_s is not None:
            prompt = request.prompt_tokens
            alone = COST.step_s(Batch(0, 0, prompt, prompt * prompt / 2, 0, 1, 1))
            assert request.first_s - request.arrives_s >= alone * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(loads())
def test_the_same_input_gives_the_same_output(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    again = [Traced(r.name, r.prompt_tokens, r.output_tokens, r.arrives_at_step, r.aborts_at_step) for r in requests]
    assert drive(limits, requests).steps == drive(limits, again).steps


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(16, 60), st.integers(1, 40))
def test_a_larger_cache_never_preempts_more_for_equal_requests_nor_takes_longer(
    users: int, blocks: int, more: int
) -> None:
    def run(kv_blocks: int) -> History:
        limits = Limits(kv_blocks, MAX_MODEL_LEN, 32, 2048)
        return drive(limits, [Traced(name, 96, 96, 0) for name in range(users)])

    small, large = run(blocks), run(blocks + more)
    # Several equal requests can fall into step differently; what holds for all is that the ample cache is no slower
    # than any smaller one, and that it never preempts.
    ample = run(max(users * 12, MAX_MODEL_LEN // BLOCK_TOKENS))
    assert ample.preemptions == 0
    assert ample.now_s <= min(small.now_s, large.now_s) * (1 + 1e-9)


def test_requests_are_served_first_come_first_served() -> None:
    requests = [Traced(name, 64, 32, name) for name in range(8)]
    history = drive(Limits(64, MAX_MODEL_LEN, 2, 64), requests)
    assert [name for _, _, finished, _ in history.steps for name in finished] == list(range(8))


def test_a_long_prompt_is_cut_into_chunks_that_leave_room_for_the_decodes() -> None:
    first, second = Traced(0, 16, 40, 0), Traced(1, 200, 1, 1)
    history = drive(Limits(64, MAX_MODEL_LEN, 4, 50), [first, second])
    chunks = [(batch.decodes, batch.prefill) for _, batch, _, _ in history.steps]
    assert chunks[:7] == [(0, 16), (1, 49), (1, 49), (1, 49), (1, 49), (1, 4), (1, 0)]


def test_without_chunked_prefill_a_prompt_waits_until_a_step_has_room_for_all_of_it() -> None:
    requests = [Traced(0, 200, 4, 0), Traced(1, 200, 4, 0)]
    limits = Limits(64, MAX_MODEL_LEN, 4, MAX_MODEL_LEN, chunked_prefill=False)
    assert [batch.prefill for _, batch, _, _ in drive(limits, requests).steps][:3] == [200, 200, 0]


def test_the_last_admitted_is_preempted_and_pays_its_prefill_again() -> None:
    # Sixteen blocks: two prompts of 112 tokens take seven each, and both grow until a block is missing.
    first, second = Traced(0, 112, 100, 0), Traced(1, 112, 100, 0)
    history = drive(Limits(16, MAX_MODEL_LEN, 4, 2048), [first, second])
    assert [preempted for _, _, _, preempted in history.steps if preempted] == [(1,)]
    assert (first.preemptions, second.preemptions) == (0, 1)
    # Both got a token from the prefill and one from each of the 16 steps until the eighth block was full.
    assert second.computed_prefill == 112 + (112 + 17)
    assert first.finished_s is not None
    assert second.finished_s is not None
    assert first.finished_s < second.finished_s


def test_a_request_waits_until_its_whole_prompt_fits() -> None:
    # A step has room for a first chunk of the second prompt, the cache has not: vLLM's scheduler_reserve_full_isl.
    first, second = Traced(0, 160, 20, 0), Traced(1, 150, 1, 0)
    drive(Limits(16, MAX_MODEL_LEN, 4, 2048), [first, second])
    assert first.finished_s is not None
    assert second.first_s is not None
    assert first.finished_s < second.first_s
    assert second.preemptions == 0


def test_a_request_longer_than_the_context_is_refused() -> None:
    engine: Engine[Request] = Engine(Limits(16, MAX_MODEL_LEN, 4, 2048), COST.step_s)
    engine.add(Request(200, 56))
    with pytest.raises(ContextOverflowError, match="200 tokens in and 57 out make 257, more than the maximum of 256"):
        engine.add(Request(200, 57))


def test_limits_under_which_a_request_could_starve_are_refused() -> None:
    with pytest.raises(ValueError, match="15 blocks of 16 can't hold 256 tokens"):
        Limits(15, 256, 4, 2048)
    with pytest.raises(ValueError, match="room for one token, and its draft, of each"):
        Limits(16, 256, 64, 32)
    with pytest.raises(ValueError, match="without chunked prefill"):
        Limits(16, 256, 4, 128, chunked_prefill=False)


def test_an_engine_without_work_says_so() -> None:
    engine: Engine[Request] = Engine(Limits(16, MAX_MODEL_LEN, 4, 2048), COST.step_s)
    assert not engine.has_work
    with pytest.raises(RuntimeError, match="has_work"):
        engine.step()
