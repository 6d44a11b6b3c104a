"""What each option of the scheduler promises, for any load: prefixes, drafts, CPU memory, static batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.engine import tables
from lab_pipelines.engine.core import Engine, Limits, Request, Step
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.roofline import StepCost
from lab_pipelines.engine.setup import EngineModel

MAX_MODEL_LEN = 256
COST = StepCost(tables.hardware("T4"), tables.model("microsoft/Phi-3-mini-4k-instruct"))


class Traced(Request):
    """A request with what the test itself has seen of it."""

    __slots__ = ("aborts_at_step", "arrives_at_step", "emitted", "found", "keys", "name")

    def __init__(self, name: int, keys: tuple[int, ...], rest: int, output: int, arrives: int, aborts: int | None):
        super().__init__(len(keys) * BLOCK_TOKENS + rest, output, hashes=keys)
        self.name = name
        self.keys = keys
        self.arrives_at_step = arrives
        self.aborts_at_step = aborts
        self.emitted = 0
        self.found = 0
        """Tokens that it did not have to compute, over all its admissions."""


@dataclass
class Seen:
    """Of one run: the steps, and what had been admitted before each admission."""

    steps: list[Step[Traced]] = field(default_factory=list)
    admissions: list[tuple[Traced, int, tuple[tuple[int, ...], ...]]] = field(default_factory=list)
    """Who, with how many tokens from the prefix cache, and the keys of all who were admitted before."""


def drive(limits: Limits, requests: list[Traced], *, seed: int = 7) -> Seen:
    """Run all to their end, and check after every step what must hold after every step."""
    draw = Random(seed)
    accepted = (lambda request: draw.randint(0, limits.draft_tokens)) if limits.draft_tokens else None
    engine: Engine[Traced] = Engine(limits, COST.step_s, accepted)
    seen, index = Seen(), 0
    pending = sorted(requests, key=lambda request: request.arrives_at_step)
    former: list[tuple[int, ...]] = []
    while pending or engine.has_work:
        while pending and (pending[0].arrives_at_step <= index or not engine.has_work):
            engine.add(pending.pop(0))
        for request in requests:
            if request.aborts_at_step == index:
                engine.abort(request)
        index += 1
        if not engine.has_work:
            continue
        running = [*engine.decoding, *([engine.prefilling] if engine.prefilling is not None else [])]
        step = engine.step()
        seen.steps.append(step)
        assert step.preempted == [*running, *step.admitted][::-1][: len(step.preempted)], "the last admitted goes first"
        for request in step.admitted:
            seen.admissions.append((request, request.cache_hit_tokens, tuple(former)))
            former.append(request.keys)
            request.found += request.cache_hit_tokens + request.offload_hit_tokens
        for request in [*step.prefilled, *(() if step.emitted is not None else _decoded(engine, step))]:
            request.emitted += 1
        for request, tokens in (step.emitted or {}).items():
            assert 1 <= tokens <= 1 + limits.draft_tokens
            request.emitted += tokens
        check(engine, requests, step)
        assert index < 100_000, "no end in sight"
    assert engine.free_blocks == limits.kv_blocks
    assert engine.offloaded_blocks == 0, "nobody is left whose blocks are worth keeping"
    return seen


def _decoded(engine: Engine[Traced], step: Step[Traced]) -> list[Traced]:
    return [request for request in (*engine.decoding, *step.finished) if request not in step.prefilled]


def check(engine: Engine[Traced], requests: list[Traced], step: Step[Traced]) -> None:
    limits, batch = engine.limits, step.batch
    running = [*engine.decoding, *([engine.prefilling] if engine.prefilling is not None else [])]
    held = [engine.held_blocks(request) for request in running]
    assert engine.free_blocks + engine.used_blocks == limits.kv_blocks
    assert engine.free_blocks >= 0
    if limits.prefix_caching:
        # A block that several use counts once, so never more than all of theirs, never less than anybody's own.
        own = sum(
            blocks - request.cache_hit_tokens // BLOCK_TOKENS for blocks, request in zip(held, running, strict=True)
        )
        assert max([own, *held]) <= engine.used_blocks <= sum(held)
    else:
        assert engine.used_blocks == sum(held)
    assert engine.offloaded_blocks <= limits.offload_blocks
    assert len(running) <= limits.max_num_seqs
    assert batch.decodes + batch.drafts + batch.prefill <= limits.max_num_batched_tokens
    assert batch.drafts == batch.decodes * limits.draft_tokens
    places = [*running, *engine.waiting]
    alive = [request for request in requests if request.state in ("waiting", "prefilling", "decoding")]
    assert sorted(request.name for request in places) == sorted(request.name for request in alive)
    for request in requests:
        assert engine.generated_tokens(request) == request.emitted <= request.output_tokens


@st.composite
def loads(draw: st.DrawFn) -> tuple[Limits, list[Traced]]:
    requests = []
    families = draw(st.integers(1, 3))
    for name in range(draw(st.integers(1, 12))):
        family, shared = draw(st.integers(1, families)), draw(st.integers(0, 6))
        own = draw(st.integers(0, 4))
        keys = (*(family * 100 + n for n in range(shared)), *(10_000 + name * 100 + n for n in range(own)))
        # A prompt of whole blocks is the case in which the last one must be computed though it is there.
        rest = draw(st.sampled_from([0, 1, 15, 7])) if keys else draw(st.integers(1, 15))
        output = draw(st.integers(1, MAX_MODEL_LEN - len(keys) * BLOCK_TOKENS - rest))
        arrives = draw(st.integers(0, 100))
        aborts = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(arrives, arrives + 120)))
        requests.append(Traced(name, keys, rest, output, arrives, aborts))
    seqs, drafts = draw(st.integers(1, 10)), draw(st.sampled_from([0, 0, 2, 5]))
    chunked = draw(st.booleans())
    least = seqs * (1 + drafts)
    limits = Limits(
        kv_blocks=draw(st.integers(MAX_MODEL_LEN // BLOCK_TOKENS, 50)),
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=seqs,
        max_num_batched_tokens=draw(st.integers(least, least + 200)) if chunked else MAX_MODEL_LEN + least,
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        offload_blocks=draw(st.sampled_from([0, 3, 200])),
        draft_tokens=drafts,
        static_batching=draw(st.booleans()),
    )
    return limits, requests


@settings(max_examples=200, deadline=None)
@given(loads())
def test_blocks_and_tokens_are_conserved_in_every_step_under_every_option(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    seen = drive(limits, requests)
    for request in requests:
        assert request.state in ("finished", "aborted")
        if request.state == "finished":
            assert request.emitted == request.output_tokens
    computed = sum(step.batch.prefill for step in seen.steps)
    assert computed == sum(request.computed_prefill for request in requests)


@settings(max_examples=200, deadline=None)
@given(loads())
def test_a_prefix_is_found_only_where_an_equal_one_was_before(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    for request, hit, former in drive(limits, requests).admissions:
        assert hit % BLOCK_TOKENS == 0
        assert hit == 0 or limits.prefix_caching
        keys = request.keys[: hit // BLOCK_TOKENS]
        assert hit == 0 or any(other[: len(keys)] == keys for other in former)
        if not request.preemptions:
            assert hit < request.prompt_tokens


@settings(max_examples=100, deadline=None)
@given(loads())
def test_in_an_ample_cache_the_longest_common_prefix_is_found(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    for request in requests:
        request.aborts_at_step = None
    ample = Limits(
        kv_blocks=len(requests) * MAX_MODEL_LEN // BLOCK_TOKENS + MAX_MODEL_LEN,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=8192,
        prefix_caching=True,
    )
    for request, hit, former in drive(ample, requests).admissions:
        common = max((_common(request.keys, other) for other in former), default=0)
        assert hit == min(common, (request.prompt_tokens - 1) // BLOCK_TOKENS) * BLOCK_TOKENS


def _common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@settings(max_examples=100, deadline=None)
@given(loads())
def test_every_accepted_draft_is_a_token_and_every_token_is_accounted_for(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    for step in drive(limits, requests).steps:
        if not limits.draft_tokens:
            assert step.emitted is None and not step.accepted_at
            continue
        emitted = step.emitted or {}
        assert len(emitted) == step.batch.decodes
        assert sum(step.accepted_at) == sum(emitted.values()) - len(emitted)
        assert list(step.accepted_at) == sorted(step.accepted_at, reverse=True), "a later token needs those before it"


@settings(max_examples=100, deadline=None)
@given(loads())
def test_what_comes_back_from_cpu_memory_went_there(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    seen = drive(limits, requests)
    moved = sum(step.batch.moved for step in seen.steps)
    back = sum(request.found for request in requests) - sum(hit for _, hit, _ in seen.admissions)
    assert back <= moved - back, "more came back than went"
    assert moved % BLOCK_TOKENS == 0
    if not limits.offload_blocks:
        assert moved == 0
    if not any(step.preempted for step in seen.steps):
        assert moved == 0


@settings(max_examples=100, deadline=None)
@given(loads())
def test_a_static_batch_is_joined_only_before_its_first_token(load: tuple[Limits, list[Traced]]) -> None:
    limits, requests = load
    static = Limits(
        kv_blocks=limits.kv_blocks,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=8192,  # room for all prompts in one step
        prefix_caching=limits.prefix_caching,
        offload_blocks=limits.offload_blocks,
        static_batching=True,
    )
    for step in drive(static, requests).steps:
        assert not step.admitted or step.batch.decodes == 0


@pytest.mark.parametrize("prefix_caching", [False, True])
def test_a_request_that_was_preempted_finds_its_own_prompt_again(prefix_caching: bool) -> None:
    # Sixteen blocks: two prompts of seven each grow until a block is missing, and the second one's are still there
    # when it is admitted again, but for those that the first took meanwhile.
    def prompt(name: int) -> Traced:
        return Traced(name, tuple(name * 100 + n for n in range(7)), 0, 60, 0, None)

    first, second = prompt(1), prompt(2)
    drive(Limits(16, MAX_MODEL_LEN, 4, 2048, prefix_caching=prefix_caching), [first, second])
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert second.found == (5 * BLOCK_TOKENS if prefix_caching else 0)
    # Its first admission computed 112 tokens, its second the 129 of then but for those that were found.
    assert second.computed_prefill == 112 + 129 - second.found


def test_a_gpu_with_more_memory_serves_more_at_once_and_never_less_per_second() -> None:
    served, most = [], []
    for utilization in ("0.70", "0.80", "0.90", "0.95"):
        arguments = ["microsoft/Phi-3-mini-4k-instruct", "--no-enable-prefix-caching", "--max-model-len", "2048"]
        model = EngineModel.of([*arguments, "--gpu-memory-utilization", utilization], "T4")
        replica: Replica[Tracked] = Replica(model.engine(), model.cost, start_s=0.0)
        requests = [Tracked(512, 256, arrived_s=0.0) for _ in range(64)]
        for request in requests:
            replica.submit(request)
        concurrent, ended = 0, 0
        while ended < len(requests):
            ended += len(replica.advance(replica.now_s + 5.0))
            concurrent = max(concurrent, replica.engine.running)
        served.append(64 * 256 / replica.now_s)
        most.append(concurrent)
    assert most == sorted(most)
    assert most[-1] > 2 * most[0]
    assert served == sorted(served)


def test_a_prompt_that_is_computed_in_part_gives_way_to_a_decode_admitted_before_it() -> None:
    # One token of the second prompt per step: when 72 of its 112 are computed in five blocks, the first, which holds
    # the other eleven, needs its twelfth.
    first, second = (Traced(name, (), tokens, 100, 0, None) for name, tokens in ((1, 104), (2, 112)))
    steps = drive(Limits(16, MAX_MODEL_LEN, 2, 2), [first, second]).steps
    assert (first.preemptions, second.preemptions) == (0, 1)
    assert second.computed_prefill == 72 + 112
    assert [step.batch.decodes for step in steps if step.preempted] == [1]
