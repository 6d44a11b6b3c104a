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
