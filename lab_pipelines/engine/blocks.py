"""The KV cache's blocks: how many are free, which of them still hold a prompt's beginning, and what lies in CPU memory.

Belongs here: counting, sharing and evicting blocks. Doesn't belong here: which request gets some (core.py), or how many
there are (memory.py).

A block of a prompt is known by a key, the hash of all tokens up to its end, so that equal keys mean equal contents.
Blocks without a key are plain: they are counted, and nothing finds them again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

Key = Hashable


class Blocks:
    """Plain blocks: a number of free ones."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total

    def take(self, count: int) -> None:
        """Use `count` of the free blocks."""
        self.free -= count

    def give_back(self, count: int) -> None:
        self.free += count


class PrefixBlocks(Blocks):
    """Blocks of which those with a key are shared, and stay findable after their last user until they are needed.

    Free blocks wait in one queue in the order in which they became free, whether they have a key or not; the one that
    waited longest is used first, and loses its key then. That is vLLM V1's least-recently-used order.
    """

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._users: dict[Key, int] = {}
        self._queue: OrderedDict[Key, int] = OrderedDict()
        """Free blocks, oldest first: a key of one block, or a run of plain ones with their number."""
        self._runs = 0
        self._append_plain(total)

    def find(self, keys: Sequence[Key]) -> tuple[int, int]:
        """How many blocks from the first on are here, and how many of those are in nobody's use."""
        users, queue = self._users, self._queue
        found = unused = 0
        for key in keys:
            if key in users:
                found += 1
            elif key in queue:
                found += 1
                unused += 1
            else:
                break
        return found, unused

    def share(self, keys: Sequence[Key]) -> None:
        """Use blocks that `find` has found."""
        for key in keys:
            if key in self._users:
                self._users[key] += 1
            else:
                del self._queue[key]
                self._users[key] = 1
                self.free -= 1

    def name(self, key: Key) -> bool:
        """Give one plain block in use a key. False if another block has it: then this one stays plain."""
        if key in self._users or key in self._queue:
            return False
        self._users[key] = 1
        return True

    def take(self, count: int) -> None:
        self.free -= count
        queue = self._queue
        while count:
            key, size = queue.popitem(last=False)
            if size > count:
                queue[key] = size - count
                queue.move_to_end(key, last=False)
                return
            count -= size

    def give_back(self, count: int) -> None:
        self.free += count
        self._append_plain(count)

    def leave(self, keys: Sequence[Key]) -> None:
        """Stop using the blocks of `keys`; the last of them becomes free first, so that prefixes last longest."""
        for key in reversed(keys):
            users = self._users[key] - 1
            if users:
                self._users[key] = users
            else:
                del self._users[key]
                self._queue[key] = 1
                self.free += 1

    def _append_plain(self, count: int) -> None:
        if count:
            self._runs += 1
            self._queue[_Run(self._runs)] = count


class _Run:
    """The key of a run of plain blocks; unequal to every other key."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class OffloadedBlocks:
    """CPU memory for the blocks of preempted requests. The request that was stored longest ago makes room first."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._stored: OrderedDict[Hashable, int] = OrderedDict()

    def store(self, request: Hashable, blocks: int) -> int:
        """Keep the first blocks of a request, as many as there is room for in all; how many."""
        kept = min(blocks, self.total)
        if not kept:
            return 0
        while self.used + kept > self.total:
            _, size = self._stored.popitem(last=False)
            self.used -= size
        self._stored[request] = kept
        self.used += kept
        return kept

    def stored(self, request: Hashable) -> int:
        return self._stored.get(request, 0)

    def forget(self, request: Hashable) -> None:
        """The request is back in GPU memory, or gone."""
        self.used -= self._stored.pop(request, 0)
