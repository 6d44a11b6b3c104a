"""The engine's scheduler as one pure step function: continuous batching over a KV cache of blocks.

Belongs here: which requests share a step, which wait, which are preempted, and what each step emits.
Doesn't belong here: clocks, sockets, randomness; how long a step takes (roofline.py), counting blocks (blocks.py) and
the decodes' tokens (decoding.py). Whoever drives it hands arrivals in, calls `step()`, and lets the returned stack
seconds pass: pacer.py on the wall clock, replica.py in virtual time.

The policy is vLLM V1's: first come, first served; running decodes first, then one token budget for prefill chunks;
a waiting request is admitted only if its whole sequence fits the free blocks; when a running request lacks a block,
the request admitted last is preempted, its blocks are freed, and it waits at the head to be computed again, or to get
its blocks back from CPU memory where there is some for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from lab_pipelines.engine.blocks import Blocks, Key, OffloadedBlocks, PrefixBlocks
from lab_pipelines.engine.decoding import Lockstep, Speculation, blocks_of
from lab_pipelines.engine.memory import BLOCK_TOKENS
from lab_pipelines.engine.roofline import Batch

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

SHORTEST_LEAP = 4
"""Steps below which a leap costs more than the steps themselves."""
LONGEST_LEAP = 1024

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
        if self.max_num_seqs < 1 or self.max_num_batched_tokens < self.max_num_seqs * (1 + self.draft_tokens):
            raise ValueError(
                "a step must have room for one token, and its draft, of each of its max_num_seqs sequences"
            )
        if not self.chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise ValueError("without chunked prefill a step must have room for a prompt of max_model_len tokens")


class Request:
    """One sequence: `prompt_tokens` in, exactly `output_tokens` out. Both at least 1.

    `hashes` are keys of the prompt's first full blocks, each of all tokens up to its end, as many as another request
    could share. The public attributes are for reading; only the engine changes them.
    """

    __slots__ = (
        "_block_phase",
        "_cached",
        "_finish_tick",
        "_generated",
        "_keys",
        "_named",
        "_tick",
        "cache_hit_tokens",
        "computed_prefill",
        "offload_hit_tokens",
        "output_tokens",
        "preemptions",
        "prompt_tokens",
        "state",
    )

    def __init__(self, prompt_tokens: int, output_tokens: int, *, hashes: Sequence[Key] = ()) -> None:
        if prompt_tokens < 1 or output_tokens < 1:
            raise ValueError(f"a request needs tokens in and out, got {prompt_tokens} and {output_tokens}")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.state: State = "new"
        self.preemptions = 0
        self.computed_prefill = 0
        """Tokens prefilled so far; with preemptions more than the prompt."""
        self.cache_hit_tokens = 0
        """Tokens whose KV was found in GPU memory when the request was last admitted."""
        self.offload_hit_tokens = 0
        """Tokens whose KV came back from CPU memory when the request was last admitted."""
        # While decoding in lockstep, these two hold as of tick `_tick`, and each later tick adds one to both.
        self._generated = 0
        self._cached = 0
        self._tick = 0
        self._block_phase = 0
        self._finish_tick = 0
        self._keys: Sequence[Key] = hashes
        self._named = 0
        """How many of its first blocks have a key in the pool."""


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


class Leap(NamedTuple):
    """Steps that did nothing but give every decode a token; nobody arrived, ended, or was preempted."""

    batch: Batch
    """Of the first step; each further one has `batch.decodes` more of context."""
    durations_s: NDArray[float64]
    """Stack seconds of each step."""


class Engine(Generic[R]):
    """The state between steps. `step_cost` gives the stack seconds of a batch (`StepCost.step_s`).

    `accepted` says how many of a draft's tokens the target accepts for a request in one step, from 0 to
    `limits.draft_tokens`; it is needed exactly where there are drafts.
    """

    def __init__(
        self, limits: Limits, step_cost: Callable[[Batch], float], accepted: Callable[[R], int] | None = None
    ) -> None:
        if (accepted is None) == (limits.draft_tokens > 0):
            raise ValueError("`accepted` belongs to an engine with draft_tokens, and to no other")
        self.limits = limits
        self.waiting: deque[R] = deque()
        self.prefilling: R | None = None
        """The one request whose prompt is computed in part. It is always the last admitted: a prompt that doesn't
        end within a step has used up the step's budget."""
        self._step_cost = step_cost
        self._prefixes = PrefixBlocks(limits.kv_blocks) if limits.prefix_caching else None
        self._blocks: Blocks = self._prefixes or Blocks(limits.kv_blocks)
        self._offloaded = OffloadedBlocks(limits.offload_blocks) if limits.offload_blocks else None
        self._decodes: Lockstep[R] | Speculation[R] = (
            Lockstep() if accepted is None else Speculation(limits.draft_tokens, accepted)
        )
        self._moved = 0
        """Tokens whose KV moves between GPU and CPU in the step that is being put together."""
        self._joining = 0
        """Static batching: requests that may still join the batch that is being filled."""

    @property
    def decoding(self) -> dict[R, None]:
        """In the order of admission."""
        return self._decodes.requests

    @property
    def free_blocks(self) -> int:
        """Blocks in nobody's use; some may still hold a prefix."""
        return self._blocks.free

    @property
    def offloaded_blocks(self) -> int:
        """Blocks of preempted requests in CPU memory."""
        return self._offloaded.used if self._offloaded else 0

    @property
    def has_work(self) -> bool:
        return bool(self._decodes.requests or self.prefilling is not None or self.waiting)

    @property
    def running(self) -> int:
        """Requests that hold a place in the batch."""
        return len(self._decodes.requests) + (self.prefilling is not None)

    @property
    def used_blocks(self) -> int:
        """Blocks in use; one that several requests share counts once."""
        return self.limits.kv_blocks - self._blocks.free

    def generated_tokens(self, request: R) -> int:
        """Tokens that `request` has emitted."""
        return request._generated + (self._decodes.since_begun(request) if request.state == "decoding" else 0)

    def held_blocks(self, request: R) -> int:
        """KV-cache blocks that `request` uses, shared ones included."""
        return blocks_of(request._cached + (self._decodes.since_begun(request) if request.state == "decoding" else 0))

    def check(self, request: R) -> None:
        """Raises `ContextOverflowError` for a request that can never be served."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.limits.max_model_len:
            raise ContextOverflowError(
                f"{request.prompt_tokens} tokens in and {request.output_tokens} out make {total}, "
                f"more than the maximum of {self.limits.max_model_len}"
            )

    def add(self, request: R) -> None:
        """Queue a new request. Raises `ContextOverflowError`."""
        self.check(request)
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
        if self._offloaded:
            self._offloaded.forget(request)
        request.state = "aborted"
        return True

    def step(self) -> Step[R]:
        """Schedule and compute one step. Raises `RuntimeError` when there is no work."""
        decodes = self._decodes
        preempted: list[R] = []
        self._moved = 0
        needed = decodes.needed_blocks()
        while needed > self._blocks.free:
            victim = self.prefilling if self.prefilling is not None else next(reversed(decodes.requests))
            preempted.append(self._preempt(victim))
            needed = decodes.needed_blocks()
        if needed:
            self._blocks.take(needed)

        sequences, context = len(decodes.requests), decodes.context
        drafts = sequences * decodes.drafts
        if self.prefilling is None and (preempted or not self.waiting):
            if not sequences:
                raise RuntimeError("step() without work; ask has_work first")
            batch = Batch(sequences, context, 0, 0.0, 0, sequences, sequences, drafts, self._moved)
            admitted: Sequence[R] = ()
            prefilled: Sequence[R] = ()
        else:
            batch, admitted, prefilled = self._schedule_prefill(sequences, context, drafts, preempted)

        finished, emitted = decodes.advance()
        if decodes.surplus:
            self._blocks.give_back(decodes.surplus)
        for request in finished:
            self._end(request)
        for request in prefilled:
            request._generated += 1
            if request._generated == request.output_tokens:
                self._end(request)
                finished.append(request)
            else:
                request.state = "decoding"
                decodes.add(request)
        accepted_at = decodes.accepted_at if isinstance(decodes, Speculation) and sequences else ()
        return Step(self._step_cost(batch), batch, admitted, prefilled, finished, preempted, emitted, accepted_at)

    def leap(self, within_s: float, times: Callable[[Batch, int], NDArray[float64]]) -> Leap | None:
        """All steps at once that change nothing but the decodes' progress and begin less than `within_s` from now.

        Between two arrivals, ends or shortages of blocks a step follows from the one before, so that a stretch of them
        can be taken at once, with the same result. `times` gives the stack seconds of so many steps
        (`StepCost.steps_s`). None where fewer than a few such steps are ahead, and where there is speculation.
        """
        decodes = self._decodes
        if not decodes.requests or self.prefilling is not None or isinstance(decodes, Speculation):
            return None
        if self.waiting and self._admissible(self.waiting[0], len(decodes.requests)) is not None:
            return None
        most = min(decodes.steps_without_change(self._blocks.free), LONGEST_LEAP)
        if most < SHORTEST_LEAP:
            return None
        sequences = len(decodes.requests)
        batch = Batch(sequences, decodes.context, 0, 0.0, 0, sequences, sequences)
        durations_s = times(batch, most)
        # A step is in when those before it end within the time.
        steps = int((durations_s.cumsum() - durations_s).searchsorted(within_s))
        if steps < SHORTEST_LEAP:
            return None
        needed = decodes.leap(steps)
        if needed:
            self._blocks.take(needed)
        return Leap(batch, durations_s[:steps])

    def _admissible(self, head: R, running: int) -> int | None:
        """Blocks of its prefix that can be shared, if the waiting request can join the batch now; else None."""
        if running >= self.limits.max_num_seqs:
            return None
        if self.limits.static_batching and not self._joining and running:
            return None
        target = head.prompt_tokens + head._generated
        found = unused = 0
        if self._prefixes is not None:
            # The last token must be computed in any case, since it gives the next one.
            found, unused = self._prefixes.find(head._keys[: (target - 1) // BLOCK_TOKENS])
        if blocks_of(target) - found + unused > self._blocks.free:
            return None
        return found

    def _schedule_prefill(
        self, decodes: int, context: int, drafts: int, preempted: list[R]
    ) -> tuple[Batch, list[R], list[R]]:
        limits = self.limits
        budget = limits.max_num_batched_tokens - decodes - drafts
        tokens, work, prefix, sequences = 0, 0.0, 0, decodes
        admitted: list[R] = []
        prefilled: list[R] = []
        if limits.static_batching and not decodes and self.prefilling is None:
            self._joining = min(len(self.waiting), limits.max_num_seqs)
        while budget > 0:
            request = self.prefilling
            if request is None:
                head = self.waiting[0] if self.waiting and not preempted else None
                found = None if head is None else self._admissible(head, decodes + len(prefilled))
                if head is None or found is None:
                    # A static batch in which the next one finds no place is full: nobody takes one that frees later.
                    self._joining = 0
                    break
                if not limits.chunked_prefill and self._uncached(head, found) > budget:
                    break
                request = self._admit(found)
                admitted.append(request)
            cached = request._cached
            target = request.prompt_tokens + request._generated
            chunk = min(budget, target - cached)
            blocks = blocks_of(cached + chunk) - blocks_of(cached)
            if blocks > self._blocks.free:
                preempted.append(self._preempt(request))
                break
            self._blocks.take(blocks)
            request._cached = cached + chunk
            request.computed_prefill += chunk
            if self._prefixes is not None:
                self._name(request, self._prefixes)
            budget -= chunk
            tokens += chunk
            work += chunk * (cached + 0.5 * chunk)
            prefix += cached
            sequences += 1
            if request._cached == target:
                prefilled.append(request)
                self.prefilling = None
        sampled = decodes + len(prefilled)
        batch = Batch(decodes, context, tokens, work, prefix, sampled, sequences, drafts, self._moved)
        return batch, admitted, prefilled

    def _uncached(self, head: R, found: int) -> int:
        """Tokens that would have to be computed for a waiting request of whose prefix so many blocks are there."""
        target = head.prompt_tokens + head._generated
        stored = self._offloaded.stored(head) if self._offloaded else 0
        return target - max(found, min(stored, (target - 1) // BLOCK_TOKENS)) * BLOCK_TOKENS

    def _admit(self, found: int) -> R:
        """Take the head of the queue into the batch, with `found` blocks of its prefix from the GPU's own cache."""
        request = self.waiting.popleft()
        request.state = "prefilling"
        self.prefilling = request
        self._joining = max(self._joining - 1, 0)
        if self._prefixes is not None:
            self._prefixes.share(request._keys[:found])
            request._named = found
        request.cache_hit_tokens = request._cached = found * BLOCK_TOKENS
        request.offload_hit_tokens = 0
        if self._offloaded is not None:
            target = request.prompt_tokens + request._generated
            back = min(self._offloaded.stored(request), (target - 1) // BLOCK_TOKENS) - found
            if back > 0:
                self._blocks.take(back)
                request.offload_hit_tokens = back * BLOCK_TOKENS
                request._cached += back * BLOCK_TOKENS
                self._moved += back * BLOCK_TOKENS
            self._offloaded.forget(request)
        return request

    def _name(self, request: R, pool: PrefixBlocks) -> None:
        """Give the full blocks of a prompt their keys, as far as no other block has them.

        As in vLLM, they are found from the moment at which their computation is scheduled.
        """
        full = min(request._cached // BLOCK_TOKENS, len(request._keys))
        while request._named < full and pool.name(request._keys[request._named]):
            request._named += 1

    def _release(self, request: R) -> None:
        """Free the blocks of a request."""
        held = blocks_of(request._cached)
        if self._prefixes is None:
            self._blocks.give_back(held)
        else:
            self._prefixes.give_back(held - request._named)
            self._prefixes.leave(request._keys[: request._named])
        request._cached = 0

    def _end(self, request: R) -> None:
        request.state = "finished"
        self._release(request)

    def _evict(self, request: R) -> None:
        """Take a running request out of the batch and free its blocks; what it has emitted stays known."""
        if request is self.prefilling:
            self.prefilling = None
        else:
            self._decodes.remove(request)
        self._release(request)

    def _preempt(self, request: R) -> R:
        if request is not self.prefilling:
            self._decodes.remove(request)
        else:
            self.prefilling = None
        if self._offloaded is not None:
            self._moved += self._offloaded.store(request, request._cached // BLOCK_TOKENS) * BLOCK_TOKENS
        self._release(request)
        request.state = "waiting"
        request.preemptions += 1
        self.waiting.appendleft(request)
        return request
