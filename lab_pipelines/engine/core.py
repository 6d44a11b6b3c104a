"""The engine's scheduler as one pure step function: continuous batching over a KV cache of blocks.

Belongs here: which requests share a step, which wait, which are preempted, and what each step emits.
Doesn't belong here: clocks, sockets, randomness; how long a step takes (roofline.py). Whoever drives it hands
arrivals in, calls `step()`, and lets the returned stack seconds pass (pacer.py on the wall clock).

The policy is vLLM V1's: first come, first served; running decodes first, then one token budget for prefill chunks;
a waiting request is admitted only if its whole sequence fits the free blocks; when a running request lacks a block,
the request admitted last is preempted, its blocks are freed, and it waits at the head to be computed again.

A step costs O(1) however large the batch: all decodes advance by one token in every step, so a request's progress
follows from the tick at which it began to decode, the sum of contexts grows by the number of decodes, blocks are
needed by those whose length has the right remainder, and a request's last tick is known when it begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.roofline import Batch

State = Literal["new", "waiting", "prefilling", "decoding", "finished", "aborted"]


class ContextOverflowError(ValueError):
    """A request is longer than the engine's maximum context."""


@dataclass(frozen=True)
class Limits:
    """What bounds a batch. Raises `ValueError` for limits under which some request could never run."""

    kv_blocks: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    chunked_prefill: bool = True
    prefix_caching: bool = False
    offload_blocks: int = 0
    """Blocks of KV cache in CPU memory, which preempted requests' blocks go to; 0: they are computed again."""
    draft_tokens: int = 0
    """Tokens that a draft proposes per sequence and step; 0: no speculation."""
    static_batching: bool = False
    """Requests join only when the whole batch has ended, as before continuous batching."""

    def __post_init__(self) -> None:
        if self.kv_blocks * BLOCK_TOKENS < self.max_model_len:
            raise ValueError(f"{self.kv_blocks} blocks of {BLOCK_TOKENS} can't hold {self.max_model_len} tokens")
        if self.max_num_seqs < 1 or self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("a step must have room for one token of each of its max_num_seqs sequences")
        if not self.chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise ValueError("without chunked prefill a step must have room for a prompt of max_model_len tokens")


class Request:
    """One sequence: `prompt_tokens` in, exactly `output_tokens` out. Both at least 1.

    The public attributes are for reading; only the engine changes them.
    """

    __slots__ = (
        "_block_phase",
        "_cached",
        "_finish_tick",
        "_generated",
        "_tick",
        "computed_prefill",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "state",
    )

    def __init__(self, prompt_tokens: int, output_tokens: int) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"a request needs tokens in and out, got {prompt_tokens} and {output_tokens}")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.state: State = "new"
        self.preemptions = 0
        self.computed_prefill = 0
        """Tokens prefilled so far; with preemptions more than the prompt."""
        # While decoding, these two hold as of tick `_tick`, and each later tick adds one to both.
        self._generated = 0
        self._cached = 0
        self._tick = 0
        self._block_phase = 0
        self._finish_tick = 0


R = TypeVar("R", bound=Request)


class Step(NamedTuple, Generic[R]):
    """What a step did. After it, exactly the requests in `Engine.decoding` and in `finished` have one token more."""

    duration_s: float
    """Stack seconds, > 0."""
    batch: Batch
    admitted: Sequence[R]
    """Taken from the queue, again after a preemption included."""
    prefilled: Sequence[R]
    """Completed their prefill, and so emitted a token (their first, unless they had been preempted)."""
    finished: Sequence[R]
    preempted: Sequence[R]
    emitted: Mapping[R, int] | None = None
    """Speculation only: tokens of each request that was decoding in this step. None: one each."""
    accepted_at: Sequence[int] = ()
    """Speculation only: of how many sequences the draft's first, second, … token was accepted."""


class Engine(Generic[R]):
    """The state between steps. `step_cost` gives the stack seconds of a batch (`StepCost.step_s`)."""

    def __init__(self, limits: Limits, step_cost: Callable[[Batch], float]) -> None:
        self.limits = limits
        self.free_blocks = limits.kv_blocks
        self.waiting: deque[R] = deque()
        self.prefilling: R | None = None
        """The one request whose prompt is computed in part. It is always the last admitted: a prompt that doesn't
        end within a step has used up the step's budget."""
        self.decoding: dict[R, None] = {}
        """In the order of admission."""
        self._step_cost = step_cost
        self._tick = 0
        self._context = 0
        """Sum over the decoding of cached tokens + 1, what each attends to in the next step."""
        self._phases = [0] * BLOCK_TOKENS
        """Decoding requests by the remainder of (cached tokens - tick): those that cross a block's edge together."""
        self._finishing: dict[int, list[R]] = {}

    @property
    def has_work(self) -> bool:
        return bool(self.decoding or self.prefilling is not None or self.waiting)

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return len(self.decoding) + (self.prefilling is not None)

    @property
    def used_blocks(self) -> int:
        return self.limits.kv_blocks - self.free_blocks

    def generated_tokens(self, request: R) -> int:
        """Tokens that `request` has emitted."""
        return request._generated + (self._tick - request._tick if request.state == "decoding" else 0)

    def held_blocks(self, request: R) -> int:
        """KV-cache blocks that `request` holds."""
        return _blocks(request._cached + (self._tick - request._tick if request.state == "decoding" else 0))

    def add(self, request: R) -> None:
        """Queue a new request. Raises `ContextOverflowError`."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.limits.max_model_len:
            raise ContextOverflowError(
                f"{request.prompt_tokens} tokens in and {request.output_tokens} out make {total}, "
                f"more than the maximum of {self.limits.max_model_len}"
            )
        if request.state != "new":
            raise ValueError(f"the request is already {request.state}")
        request.state = "waiting"
        self.waiting.append(request)

    def abort(self, request: R) -> bool:
        """Drop a request and free its blocks. False if the engine no longer has it."""
        if request.state == "waiting":
            self.waiting.remove(request)
        elif request.state in ("prefilling", "decoding"):
            self._evict(request)
        else:
            return False
        request.state = "aborted"
        return True

    def step(self) -> Step[R]:
        """Schedule and compute one step. Raises `RuntimeError` when there is no work."""
        preempted: list[R] = []
        # A decode whose cached tokens fill their blocks exactly needs a new one now.
        needed = self._phases[-self._tick % BLOCK_TOKENS]
        while needed > self.free_blocks:
            victim = self.prefilling if self.prefilling is not None else next(reversed(self.decoding))
            preempted.append(self._preempt(victim))
            needed = self._phases[-self._tick % BLOCK_TOKENS]
        self.free_blocks -= needed

        decodes, context = len(self.decoding), self._context
        if self.prefilling is None and (preempted or not self.waiting):
            if not decodes:
                raise RuntimeError("step() without work; ask has_work first")
            batch = Batch(decodes, context, 0, 0.0, 0, decodes, decodes)
            admitted: Sequence[R] = ()
            prefilled: Sequence[R] = ()
        else:
            batch, admitted, prefilled = self._schedule_prefill(decodes, context, preempted)

        self._tick += 1
        self._context += decodes
        finished: list[R] | None = self._finishing.pop(self._tick, None)
        if finished is not None:
            for request in finished:
                self._leave_decoding(request)
                self._end(request)
        for request in prefilled:
            request._generated += 1
            if request._generated == request.output_tokens:
                self._end(request)
                finished = [*finished, request] if finished else [request]
            else:
                self._begin_decoding(request)
        return Step(self._step_cost(batch), batch, admitted, prefilled, finished or (), preempted)

    def _schedule_prefill(self, decodes: int, context: int, preempted: list[R]) -> tuple[Batch, list[R], list[R]]:
        budget = self.limits.max_num_batched_tokens - decodes
        tokens, work, prefix, sequences = 0, 0.0, 0, decodes
        admitted: list[R] = []
        prefilled: list[R] = []
        while budget > 0:
            request = self.prefilling
            if request is None:
                if preempted or not self.waiting or decodes + len(prefilled) >= self.limits.max_num_seqs:
                    break
                head = self.waiting[0]
                target = head.prompt_tokens + head._generated
                if _blocks(target) > self.free_blocks or (not self.limits.chunked_prefill and target > budget):
                    break
                request = self.waiting.popleft()
                request.state = "prefilling"
                self.prefilling = request
                admitted.append(request)
            cached = request._cached
            target = request.prompt_tokens + request._generated
            chunk = min(budget, target - cached)
            blocks = _blocks(cached + chunk) - _blocks(cached)
            if blocks > self.free_blocks:
                preempted.append(self._preempt(request))
                break
            self.free_blocks -= blocks
            request._cached = cached + chunk
            request.computed_prefill += chunk
            budget -= chunk
            tokens += chunk
            work += chunk * (cached + 0.5 * chunk)
            prefix += cached
            sequences += 1
            if request._cached == target:
                prefilled.append(request)
                self.prefilling = None
        batch = Batch(decodes, context, tokens, work, prefix, decodes + len(prefilled), sequences)
        return batch, admitted, prefilled

    def _begin_decoding(self, request: R) -> None:
        request.state = "decoding"
        request._tick = self._tick
        request._block_phase = (request._cached - self._tick) % BLOCK_TOKENS
        request._finish_tick = self._tick + request.output_tokens - request._generated
        self._phases[request._block_phase] += 1
        self._context += request._cached + 1
        self._finishing.setdefault(request._finish_tick, []).append(request)
        self.decoding[request] = None

    def _leave_decoding(self, request: R) -> None:
        elapsed = self._tick - request._tick
        request._generated += elapsed
        request._cached += elapsed
        request._tick = self._tick
        self._phases[request._block_phase] -= 1
        self._context -= request._cached + 1
        del self.decoding[request]

    def _end(self, request: R) -> None:
        request.state = "finished"
        self.free_blocks += _blocks(request._cached)
        request._cached = 0

    def _evict(self, request: R) -> None:
        """Take a running request out of the batch and free its blocks; what it has emitted stays known."""
        if request is self.prefilling:
            self.prefilling = None
        else:
            self._leave_decoding(request)
            finishing = self._finishing[request._finish_tick]
            finishing.remove(request)
            if not finishing:
                del self._finishing[request._finish_tick]
        self.free_blocks += _blocks(request._cached)
        request._cached = 0

    def _preempt(self, request: R) -> R:
        self._evict(request)
        request.state = "waiting"
        request.preemptions += 1
        self.waiting.appendleft(request)
        return request


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)
