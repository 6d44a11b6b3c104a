"""How far the decoding requests of an engine have come, and which blocks their next step needs.

Belongs here: the two ways to keep count. In lockstep, all decodes advance by one token in every step, and a step costs
O(1) however large the batch; with speculation each advances by as many tokens as its draft got right, one by one.
Doesn't belong here: who decodes, waits or is preempted (core.py).

Lockstep: a request's progress follows from the tick at which it began to decode, the sum of contexts grows by the
number of decodes, blocks are needed by those whose length has the right remainder, and a request's last tick is known
when it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from lab_pipelines.engine.memory import BLOCK_TOKENS

if TYPE_CHECKING:
    from lab_pipelines.engine.core import Request

R = TypeVar("R", bound="Request")


def blocks_of(tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class Lockstep(Generic[R]):
    """Every decode gets one token a step."""

    drafts = 0
    surplus = 0

    def __init__(self) -> None:
        self.requests: dict[R, None] = {}
        """In the order of admission."""
        self.context = 0
        """Sum over the decodes of cached tokens + 1, what each attends to in the next step."""
        self._tick = 0
        self._phases = [0] * BLOCK_TOKENS
        """Decodes by the remainder of (cached tokens - tick): those that cross a block's edge together."""
        self._finishing: dict[int, list[R]] = {}

    def needed_blocks(self) -> int:
        """New blocks for the next step: a decode whose cached tokens fill their blocks exactly needs one."""
        return self._phases[-self._tick % BLOCK_TOKENS]

    def advance(self) -> tuple[list[R], Mapping[R, int] | None]:
        """One token for each; those that have all of theirs now, already taken out, and None: one token each."""
        self._tick += 1
        self.context += len(self.requests)
        finished = self._finishing.pop(self._tick, None)
        if finished is None:
            return [], None
        for request in finished:
            self._leave(request)
        return finished, None

    def add(self, request: R) -> None:
        request._tick = self._tick
        request._block_phase = (request._cached - self._tick) % BLOCK_TOKENS
        request._finish_tick = self._tick + request.output_tokens - request._generated
        self._phases[request._block_phase] += 1
        self.context += request._cached + 1
        self._finishing.setdefault(request._finish_tick, []).append(request)
        self.requests[request] = None

    def remove(self, request: R) -> None:
        """Take a request out before its end; its own counts are up to date then."""
        self._leave(request)
        finishing = self._finishing[request._finish_tick]
        finishing.remove(request)
        if not finishing:
            del self._finishing[request._finish_tick]

    def since_begun(self, request: R) -> int:
        """Tokens that its own counts don't have yet."""
        return self._tick - request._tick

    def steps_without_change(self, free_blocks: int) -> int:
        """How many steps need no more than `free_blocks` and end no request."""
        decodes = len(self.requests)
        until_finish = min(self._finishing) - self._tick - 1
        rounds, rest = divmod(free_blocks, decodes)  # every sixteen steps, each decode needs one block
        steps = rounds * BLOCK_TOKENS
        if steps >= until_finish:
            return until_finish
        while (needed := self._phases[-(self._tick + steps) % BLOCK_TOKENS]) <= rest:
            rest -= needed
            steps += 1
        return min(steps, until_finish)

    def leap(self, steps: int) -> int:
        """So many steps at once; the new blocks that they need. Only as many as `steps_without_change` allows."""
        rounds, rest = divmod(steps, BLOCK_TOKENS)
        decodes = len(self.requests)
        needed = rounds * decodes + sum(self._phases[-(self._tick + n) % BLOCK_TOKENS] for n in range(rest))
        self._tick += steps
        self.context += decodes * steps
        return needed

    def _leave(self, request: R) -> None:
        elapsed = self._tick - request._tick
        request._generated += elapsed
        request._cached += elapsed
        request._tick = self._tick
        self._phases[request._block_phase] -= 1
        self.context -= request._cached + 1
        del self.requests[request]


class Speculation(Generic[R]):
    """Each decode verifies a draft of `drafts` tokens a step, and keeps what the target accepts and one token more."""

    def __init__(self, drafts: int, accepted: Callable[[R], int]) -> None:
        self.requests: dict[R, None] = {}
        self.context = 0
        self.drafts = drafts
        self.accepted_at = [0] * drafts
        """Of the last step: how many sequences had their draft's first, second, … token accepted."""
        self.surplus = 0
        """Of the last step: blocks that it took and did not need, since drafts were wrong."""
        self._accepted = accepted

    def needed_blocks(self) -> int:
        """New blocks for the next step, as if every draft came true."""
        ahead = self.drafts + 1
        return sum(
            blocks_of(min(r._cached + ahead, r.prompt_tokens + r.output_tokens - 1)) - blocks_of(r._cached)
            for r in self.requests
        )

    def advance(self) -> tuple[list[R], Mapping[R, int] | None]:
        """Each one's tokens; those that have all of theirs now, already taken out."""
        emitted: dict[R, int] = {}
        self.surplus = self.needed_blocks()
        counts = [0] * (self.drafts + 1)
        for request in self.requests:
            right = self._accepted(request)
            tokens = min(1 + right, request.output_tokens - request._generated)
            counts[tokens - 1] += 1
            emitted[request] = tokens
            self.surplus -= blocks_of(request._cached + tokens) - blocks_of(request._cached)
            request._generated += tokens
            request._cached += tokens
            self.context += tokens
        self.accepted_at = [sum(counts[position + 1 :]) for position in range(self.drafts)]
        finished = [request for request in self.requests if request._generated == request.output_tokens]
        for request in finished:
            self.remove(request)
        return finished, emitted

    def add(self, request: R) -> None:
        self.context += request._cached + 1
        self.requests[request] = None

    def remove(self, request: R) -> None:
        self.context -= request._cached + 1
        del self.requests[request]

    def since_begun(self, request: R) -> int:
        """Nothing: its own counts are always up to date."""
        return 0
