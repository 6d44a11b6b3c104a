"""Blocks are conserved whatever is taken, shared and given back, and the block that waited longest is lost first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lab_pipelines.engine.blocks import OffloadedBlocks, PrefixBlocks


def named(pool: PrefixBlocks, *keys: str) -> None:
    pool.take(len(keys))
    for key in keys:
        assert pool.name(key)


def test_blocks_are_found_until_they_are_needed_and_the_oldest_goes_first() -> None:
    pool = PrefixBlocks(4)
    named(pool, "a", "b")
    assert pool.find(["a", "b", "c"]) == (2, 0)
    pool.leave(["a", "b"])
    assert (pool.free, pool.find(["a", "b"])) == (4, (2, 2))
    pool.take(2)  # the two that were never used
    assert pool.find(["a", "b"]) == (2, 2)
    pool.take(1)  # of a prompt the last block became free first
    assert pool.find(["a", "b"]) == (1, 1)
    pool.take(1)
    assert pool.find(["a"]) == (0, 0) and pool.free == 0


def test_a_shared_block_counts_once_and_is_free_when_its_last_user_leaves() -> None:
    pool = PrefixBlocks(3)
    named(pool, "a")
    pool.share(["a"])
    assert pool.free == 2
    pool.leave(["a"])
    assert pool.free == 2
    pool.leave(["a"])
    assert pool.free == 3
    pool.share(["a"])
    assert (pool.free, pool.find(["a"])) == (2, (1, 0))


def test_a_key_has_one_block() -> None:
    pool = PrefixBlocks(2)
    named(pool, "a")
    pool.take(1)
    assert not pool.name("a")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), max_size=60))
def test_free_and_used_blocks_are_all_there_are(moves: list[tuple[int, int]]) -> None:
    pool, plain, held = PrefixBlocks(12), 0, list[list[tuple[int, int]]]()
    for kind, size in moves:
        keys = [(kind, n) for n in range(size)]
        if kind < 3:
            found, unused = pool.find(keys)
            if unused + size - found > pool.free:
                continue
            pool.share(keys[:found])
            pool.take(size - found)
            mine = keys[:found]
            for key in keys[found:]:
                if not pool.name(key):
                    break
                mine.append(key)
            plain += size - len(mine)
            held.append(mine)
        elif kind == 3 and held:
            pool.leave(held.pop(0))
        elif kind == 4 and plain:
            pool.give_back(1)
            plain -= 1
        elif kind == 5 and size <= pool.free:
            pool.take(size)
            plain += size
        in_use = plain + len({key for keys in held for key in keys})
        assert pool.free + in_use == 12
        for keys in held:
            assert pool.find(keys) == (len(keys), 0), "what is in use is never lost"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=40))
def test_cpu_memory_never_holds_more_than_it_has(moves: list[tuple[int, int]]) -> None:
    pool = OffloadedBlocks(8)
    for request, blocks in moves:
        if blocks == 0:
            pool.forget(request)
            assert pool.stored(request) == 0
        elif not pool.stored(request):
            kept = pool.store(request, blocks)
            assert kept == pool.stored(request) == min(blocks, 8)
        assert pool.used == sum(pool.stored(one) for one in range(7)) <= 8


class EveryBlock:
    """The same pool, told by writing down each block: what it holds, who uses it, and the order of the free ones."""

    def __init__(self, total: int) -> None:
        self.keys: list[tuple[int, int] | None] = [None] * total
        self.users = [0] * total
        self.queue = list(range(total))

    def block_of(self, key: tuple[int, int]) -> int | None:
        return self.keys.index(key) if key in self.keys else None

    def found(self, keys: list[tuple[int, int]]) -> list[int]:
        blocks: list[int] = []
        for key in keys:
            block = self.block_of(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def use(self, block: int) -> None:
        if not self.users[block]:
            self.queue.remove(block)
        self.users[block] += 1

    def take(self) -> int:
        block = self.queue.pop(0)
        self.keys[block] = None
        self.users[block] = 1
        return block

    def leave(self, block: int) -> None:
        self.users[block] -= 1
        if not self.users[block]:
            self.queue.append(block)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 4), st.integers(0, 5), st.integers(0, 3)), max_size=60))
def test_the_pool_finds_and_forgets_what_a_list_of_every_block_does(moves: list[tuple[int, int, int]]) -> None:
    pool, told = PrefixBlocks(14), EveryBlock(14)
    held: list[tuple[list[tuple[int, int]], int, list[int]]] = []
    for family, length, tail in moves:
        if family < 0 and held:  # the request that came first, second, … ends
            keys, plain, blocks = held.pop(min(-family, len(held)) - 1)
            pool.give_back(plain)
            pool.leave(keys)
            for block in reversed(blocks):
                told.leave(block)
        elif family >= 0:
            keys = [(family, n) for n in range(length)]
            there = told.found(keys)
            assert pool.find(keys) == (len(there), sum(not told.users[block] for block in there))
            new = length + tail - len(there)
            if sum(block not in there for block in told.queue) < new:
                continue
            pool.share(keys[: len(there)])
            pool.take(new)
            for block in there:
                told.use(block)
            blocks = [*there, *(told.take() for _ in range(new))]
            mine = keys[: len(there)]
            for n in range(len(there), length):
                absent = told.block_of(keys[n]) is None
                assert pool.name(keys[n]) == absent
                if not absent:
                    break
                told.keys[blocks[n]] = keys[n]
                mine.append(keys[n])
            held.append((mine, length + tail - len(mine), blocks))
        assert pool.free == len(told.queue)
    for family in range(5):
        for length in range(1, 6):
            keys = [(family, n) for n in range(length)]
            assert pool.find(keys)[0] == len(told.found(keys))
