"""Server-sent events in a response body, each with the time at which it had arrived. Pure.

Belongs here: where an event ends and what it says, as bytes and as a completion's chunk.
Doesn't belong here: sockets (exchange.py), or what a request came to (records.py).

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html. Lines end in LF or CRLF; the lone CR that
the standard allows too is sent by no server that we know of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Self

_SENT = b": sent_ns="
STAMP_DIGITS = 19
"""At most: nanoseconds of three hundred years. Longer numbers are no stamps."""
_USUAL = re.compile(rb"(?:: sent_ns=(\d{1,19})\r?\n)?data: ?(.*)(?<!\r)\r?\n\r?\n")
"""An event as nearly all are, with or without a stamp; any other is read line by line."""
_ASCII_TEXT = re.compile(rb'(?:[ !#-\[\]-~]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})+')
"""The inside of a JSON string that isn't empty. Text beyond ASCII is left to the decoder, which knows bad UTF-8."""
_MARK = "the text's place"


class Event(NamedTuple):
    """One event that carries data."""

    arrived: float
    """The stamp of the read that completed it."""
    data: bytes
    sent_ns: int | None
    """The server's stamp of sending it, where there is one."""


def events(body: bytes | bytearray, reads: Sequence[tuple[float, int]], *, complete: bool) -> Iterator[Event]:
    """Split `body` into its events.

    `reads` are the reads from the socket in order: (stamp, length of the body after it). Several events of one read
    share its stamp. A last event without a blank line counts only when the body is `complete`: else it was cut.
    """
    size = len(body)
    content = bytes(body) + b"\n\n" if complete else bytes(body)
    read = position = 0
    data: bytes | None = None
    sent_ns: int | None = None
    while True:
        if data is None and (usual := _USUAL.match(content, position)):
            stamp, value = usual.groups()
            data, position = bytes(value), usual.end()
            sent_ns = int(stamp) if stamp else sent_ns
        else:
            end = content.find(b"\n", position)
            if end < 0:
                return
            line = content[position:end].removesuffix(b"\r")
            position = end + 1
            if line.startswith(b"data:"):
                value = line[5:].removeprefix(b" ")
                data = value if data is None else data + b"\n" + value
            elif line.startswith(_SENT):
                stamp = line[len(_SENT) :]
                sent_ns = int(stamp) if stamp.isdigit() and len(stamp) <= STAMP_DIGITS else None
            if line or data is None:
                continue
        while reads[read][1] < min(position, size):
            read += 1
        yield Event(reads[read][0], data, sent_ns)
        data = sent_ns = None


def carries_tokens(chunk: Mapping[str, Any]) -> bool:
    """Whether a completion's chunk brings output: text, or a chat delta with more in it than the role.

    The usage chunk has no choices; a chat's first chunk has only a role.
    """
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("text") or delta.get("content") or delta.get("reasoning_content"):
            return True
    return False


class Alike:
    """Knows the chunks that say the same as an earlier one but for their text, without decoding them.

    Nearly all of a stream's chunks are like that, and decoding them would be half of what a client spends on them. One
    that isn't recognised has to be decoded; one that is carries tokens, and neither usage, finish reason nor error.
    """

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after

    @classmethod
    def to(cls, data: bytes, chunk: Mapping[str, Any]) -> Self | None:
        """From an event's `data`, and what it says; None where its text isn't the only thing that may change."""
        choices = chunk.get("choices") or ()
        if len(choices) != 1 or choices[0].get("finish_reason") or chunk.get("usage") or chunk.get("error"):
            return None
        marked = deepcopy(chunk)
        choice = marked["choices"][0]
        holder, name = (choice, "text") if choice.get("text") else (choice.get("delta") or {}, "content")
        text = holder.get(name)
        before, found, after = data.partition(json.dumps(text).encode()) if text else (b"", b"", b"")
        if not found:
            return None
        holder[name] = _MARK
        try:
            same = json.loads(b"%b%b%b" % (before, json.dumps(_MARK).encode(), after)) == marked
        except ValueError:
            return None
        return cls(before + b'"', b'"' + after) if same else None

    def is_like(self, data: bytes) -> bool:
        return (
            data.startswith(self._before)
            and data.endswith(self._after)
            and _ASCII_TEXT.fullmatch(data, len(self._before), len(data) - len(self._after)) is not None
        )
