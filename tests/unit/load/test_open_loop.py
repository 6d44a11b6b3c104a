"""What an open loop renders ahead of its time: no request is lost or out of turn, and memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from streaming_load.exchange import Exchange
from streaming_load.open_loop import AHEAD_BYTES, AHEAD_REQUESTS, _Ahead


def exchanges(size: int, numbers: Iterator[int]) -> Iterator[Exchange]:
    return (
        Exchange(f"r-{number}", b"x" * size, timeout_s=1.0, scheduled=float(number), sent=0.0, number=number)
        for number in numbers
    )


def test_requests_come_in_their_order_however_many_were_rendered_ahead() -> None:
    ahead = _Ahead(exchanges(10, iter(range(200))))
    seen = [next(ahead).number]
    while ahead.render():
        pass
    seen += [one.number for one in islice(ahead, 30)]
    assert ahead.render()
    assert seen + [one.number for one in ahead] == list(range(200))
    assert not ahead.render()


def test_no_more_is_rendered_than_so_many_requests_or_bytes() -> None:
    for size, most in ((10, AHEAD_REQUESTS), (AHEAD_BYTES // 4, 4)):
        ahead = _Ahead(exchanges(size, count()))
        assert sum(ahead.render() for _ in range(500)) == most
        next(ahead)
        assert [ahead.render(), ahead.render()] == [True, False], "one went out, so there is room for one"


def test_a_burst_is_rendered_as_a_whole() -> None:
    ahead = _Ahead(exchanges(10, iter(range(500))))
    assert ahead.render(all_of_them=True)
    assert not ahead.render(all_of_them=True)
    assert [one.number for one in ahead] == list(range(500))
