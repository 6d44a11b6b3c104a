"""Events, their stamps and what they carry, found in the bytes of a response body."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streaming_load.sse import Alike, Event, carries_tokens, events


def read(*pieces: bytes, complete: bool = True) -> list[Event]:
    """The events of a body that arrived in `pieces`, the first at 1.0, the second at 2.0 and so on."""
    body, reads = b"", []
    for stamp, piece in enumerate(pieces, start=1):
        body += piece
        reads.append((float(stamp), len(body)))
    return list(events(body, reads, complete=complete))


def test_several_events_of_one_read_share_its_stamp() -> None:
    assert read(b"data: a\n\ndata: b\n\n", b"data: c\n\n") == [
        Event(1.0, b"a", None),
        Event(1.0, b"b", None),
        Event(2.0, b"c", None),
    ]


def test_an_event_split_over_reads_has_the_stamp_of_the_read_that_completes_it() -> None:
    assert read(b"da", b"ta: a", b"\n", b"\ndata: b\n\n") == [Event(4.0, b"a", None), Event(4.0, b"b", None)]


def test_a_servers_stamp_belongs_to_the_next_event_with_data() -> None:
    body = b": sent_ns=5\ndata: a\n\n: sent_ns=7\n\ndata: b\n\ndata: c\n\n"
    assert [(event.data, event.sent_ns) for event in read(body)] == [(b"a", 5), (b"b", 7), (b"c", None)]


def test_carriage_returns_comments_and_other_fields_are_no_data() -> None:
    body = b": ping\r\n\r\nevent: x\r\nid: 1\r\ndata:a\r\ndata:  b\r\n\r\n: sent_ns=soon\r\ndata: c\r\n\r\n"
    assert read(body) == [Event(1.0, b"a\n b", None), Event(1.0, b"c", None)]


def test_an_event_without_its_blank_line_counts_only_at_the_end_of_a_complete_body() -> None:
    assert [event.data for event in read(b"data: a\n\ndata: [DO", b"NE]")] == [b"a", b"[DONE]"]
    assert [event.data for event in read(b"data: a\n\ndata: [DONE]\n")] == [b"a", b"[DONE]"]
    assert [event.data for event in read(b"data: a\n\ndata: b\n", complete=False)] == [b"a"]
    assert [event.data for event in read(b"data: a\n\ndata: {", complete=False)] == [b"a"]


def test_an_empty_body_has_no_events() -> None:
    assert list(events(b"", [], complete=True)) == []


@given(
    values=st.lists(st.text(alphabet=st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_however_the_bytes_are_cut_the_events_are_the_same_and_never_stamped_early(
    values: list[str], cuts: list[int], newline: str
) -> None:
    parts = [f": sent_ns={n}{newline}data: {value}{newline}{newline}".encode() for n, value in enumerate(values)]
    body = b"".join(parts)
    edges = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    reads = [(float(edge), edge) for edge in edges]  # the stamp says how much of the body had arrived

    found = list(events(body, reads, complete=True))

    assert [(event.data.decode(), event.sent_ns) for event in found] == [(v, n) for n, v in enumerate(values)]
    ends = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
    assert [event.arrived for event in found] == [min(edge for edge in edges if edge >= end) for end in ends]


@pytest.mark.parametrize(
    ("chunk", "carries"),
    [
        ({"choices": [{"text": " a"}]}, True),
        ({"choices": [{"text": ""}]}, False),
        ({"choices": [{"text": ""}, {"text": "b"}]}, True),
        ({"choices": [], "usage": {"completion_tokens": 3}}, False),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {"role": "assistant"}}]}, False),
        ({"choices": [{"delta": {"content": "a"}}]}, True),
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, True),
        ({"choices": [{"delta": None, "finish_reason": "stop"}]}, False),
        ({"object": "ping"}, False),
    ],
    ids=json.dumps,
)
def test_only_a_choice_with_output_carries_tokens(chunk: dict[str, object], carries: bool) -> None:
    assert carries_tokens(chunk) is carries


def chunk(text: str, *, chat: bool = False, **more: object) -> dict[str, object]:
    """As vLLM writes one."""
    said: dict[str, object] = {"delta": {"content": text}} if chat else {"text": text}
    return {"id": "c1", "choices": [{"index": 0, **said, "finish_reason": None, **more}], "usage": None}


@given(first=st.text(min_size=1), text=st.text(), chat=st.booleans(), ascii=st.booleans())
def test_a_chunk_is_known_by_an_earlier_one_only_if_it_says_the_same_but_for_its_text(
    first: str, text: str, chat: bool, ascii: bool
) -> None:
    known = json.dumps(chunk(first, chat=chat), ensure_ascii=ascii).encode(errors="surrogatepass")
    other = json.dumps(chunk(text, chat=chat), ensure_ascii=ascii).encode(errors="surrogatepass")
    alike = Alike.to(known, chunk(first, chat=chat))
    if alike is None:
        assert not first.isascii() or not first.isprintable()
        return
    if alike.is_like(other):
        assert carries_tokens(json.loads(other))
    else:
        assert not text or not other.isascii()


@pytest.mark.parametrize(
    "other",
    [
        chunk(""),
        chunk("b", finish_reason="length"),
        {**chunk("b"), "id": "c2"},
        {**chunk("b"), "usage": {"completion_tokens": 3}},
        {**chunk("b"), "error": {"message": "out of memory"}},
        {"id": "c1", "choices": [], "usage": {"completion_tokens": 3}},
        {"error": {"message": "out of memory"}},
    ],
    ids=json.dumps,
)
def test_a_chunk_that_says_anything_else_has_to_be_decoded(other: dict[str, object]) -> None:
    alike = Alike.to(json.dumps(chunk(" a")).encode(), chunk(" a"))
    assert alike is not None
    assert alike.is_like(json.dumps(chunk('said "b"\n\\')).encode())
    assert not alike.is_like(json.dumps(other).encode())
    assert not alike.is_like(b"[DONE]")


@pytest.mark.parametrize(
    "inside",
    [b'b", "finish_reason": "stop', b"b\\", b"\\x", b"\\u12", b"\n", "é".encode(), b"\xff"],
)
def test_text_that_ends_early_or_is_no_text_is_left_to_the_decoder(inside: bytes) -> None:
    data = json.dumps(chunk(" a")).encode()
    alike = Alike.to(data, chunk(" a"))
    assert alike is not None
    assert not alike.is_like(data.replace(b" a", inside, 1))


@pytest.mark.parametrize(
    "first",
    [
        chunk("c1", chat=True),
        {**chunk(" a"), "usage": {"completion_tokens": 1}},
        chunk(" a", finish_reason="stop"),
        {"choices": [{"text": " a"}, {"text": " b"}]},
        {"choices": [{"delta": {"reasoning_content": "hm"}}]},
    ],
    ids=json.dumps,
)
def test_a_chunk_that_says_more_than_its_text_is_no_example(first: dict[str, object]) -> None:
    assert Alike.to(json.dumps(first).encode(), first) is None
