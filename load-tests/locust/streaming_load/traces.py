"""Traces of real traffic as files: when requests came, how long prompts and answers were, which prefixes they shared.

Belongs here: the two formats, and which part of a file is replayed. Only the standard library: every load process,
the rehearsal and the catalogue's checks read traces with this. Doesn't belong here: when a replayed request is due
(schedule.py) or what its prompt consists of (prompts.py).

**azure**: CSV of the Azure LLM inference traces, with the columns TIMESTAMP, ContextTokens and GeneratedTokens. Stamps
of 2023 are without a zone and have seven decimals, those of 2024 end in +00:00. Nothing says which prompts were alike.
**mooncake**: JSON lines of the Mooncake traces, with `timestamp` in milliseconds, `input_length`, `output_length` and
`hash_ids`, one for each begun block of 512 prompt tokens. An id stands for its block and all before it, so two prompts
are alike as far as their ids are.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

TraceFormat = Literal["azure", "mooncake"]
HASHED_TOKENS = 512
"""Prompt tokens of one of Mooncake's `hash_ids`."""
_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length", "hash_ids")


class TraceError(ValueError):
    """The trace can't be replayed. The message names file, line, field and remedy."""


class TraceRow(NamedTuple):
    """One request of a trace."""

    at_s: float
    """Trace seconds after the trace's first request, or after the beginning of the window that was asked for."""
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] | None
    """Of the prompt's blocks of 512 tokens; None where the format doesn't know."""


@dataclass(frozen=True)
class Replayed:
    """What is replayed of a trace."""

    rows: tuple[TraceRow, ...]
    length_s: float
    """Trace seconds of the window; without an end of its own it ends with the last request."""
    clipped: int
    """Requests whose counts of tokens aren't the trace's: cut to the most that is allowed, or none raised to one."""
    digest: str
    """Of the rows: two processes with the same digest replay the same."""

    @property
    def per_s(self) -> float:
        """Requests per trace second, on the mean of the window."""
        return len(self.rows) / self.length_s


def replayed(
    path: Path,
    form: TraceFormat,
    *,
    start_s: float,
    duration_s: float | None,
    max_input_tokens: int,
    max_output_tokens: int,
) -> Replayed:
    """The requests of the window that begins `start_s` trace seconds after the first one and lasts `duration_s`.

    A prompt or an answer that is longer than the most is cut to it. Of a prompt its beginning stays and its last block,
    so that it shares with others what it did, and is still its own. One without a token gets one.

    Raises `TraceError` for a file that can't be read, isn't of its format or isn't in the order of time, and for a
    window without two moments at which requests came.
    """
    end_s = math.inf if duration_s is None else start_s + duration_s
    # In order of time, so that nothing is read beyond the window: a week of traffic has gigabytes.
    window = takewhile(lambda row: row.at_s < end_s, _in_order(path, form))
    rows, clipped = list[TraceRow](), 0
    for row in dropwhile(lambda row: row.at_s < start_s, window):
        kept = _clipped(row, max_input_tokens, max_output_tokens)
        clipped += kept is not row
        rows.append(kept._replace(at_s=row.at_s - start_s))
    if not rows or rows[0].at_s == rows[-1].at_s:
        asked = f"from {start_s:g} s on" if duration_s is None else f"from {start_s:g} s to {end_s:g} s"
        raise TraceError(
            f"{path}: {asked} there are not two requests at different times; change start_s and duration_s, or give "
            "another file"
        )
    length_s = rows[-1].at_s if duration_s is None else duration_s
    digest = blake2b(repr(rows).encode(), digest_size=16).hexdigest()
    return Replayed(tuple(rows), length_s, clipped, digest)


def _clipped(row: TraceRow, max_input_tokens: int, max_output_tokens: int) -> TraceRow:
    """`row` itself where nothing has to change."""
    input_tokens = min(max(row.input_tokens, 1), max_input_tokens)
    output_tokens = min(max(row.output_tokens, 1), max_output_tokens)
    if (input_tokens, output_tokens) == (row.input_tokens, row.output_tokens):
        return row
    ids = None  # a prompt without tokens has no ids either: the token that it gets is its own
    if row.hash_ids:
        begun = -(-input_tokens // HASHED_TOKENS)
        ids = (*row.hash_ids[: begun - 1], row.hash_ids[-1])
    return TraceRow(row.at_s, input_tokens, output_tokens, ids)


def _in_order(path: Path, form: TraceFormat) -> Iterator[TraceRow]:
    """The rows with `at_s` after the first one's."""
    first: float | None = None
    former = -math.inf
    for line, row in _READERS[form](path):
        first = row.at_s if first is None else first
        if row.at_s < former:
            raise TraceError(
                f"{path}, line {line}: {_FIELDS[form][0]} is {former - row.at_s:g} s before the line above; sort the "
                "file by time"
            )
        former = row.at_s
        yield row._replace(at_s=round(row.at_s - first, 6))


def _azure(path: Path) -> Iterator[tuple[int, TraceRow]]:
    lines = _lines(path)
    _, header = next(lines, (1, ""))
    columns = [name.strip() for name in next(csv.reader([header]), [])]
    if missing := [name for name in _AZURE_COLUMNS if name not in columns]:
        raise TraceError(
            f"{path}, line 1: the column {missing[0]} is missing, which an Azure trace names in its first line; give "
            "the file's own `format`, or another file"
        )
    places = [columns.index(name) for name in _AZURE_COLUMNS]
    for number, line in lines:
        cells = line.split(",")
        if len(cells) != len(columns):
            raise TraceError(
                f"{path}, line {number}: {len(cells)} cells, and the file has {len(columns)} columns; {_MEND}"
            )
        stamp, context, generated = (cells[place].strip() for place in places)
        input_tokens, output_tokens = (
            _count(int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else text, name, path, number)
            for text, name in ((context, _AZURE_COLUMNS[1]), (generated, _AZURE_COLUMNS[2]))
        )
        yield number, TraceRow(_azure_stamp(stamp, path, number), input_tokens, output_tokens, None)


def _azure_stamp(text: str, path: Path, number: int) -> float:
    """Seconds. What is beyond the microsecond is left out; a stamp without a zone is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(
            f"{path}, line {number}: TIMESTAMP is {text!r:.80}, and must be like 2023-11-16 18:15:46.6805900 or "
            f"2024-05-10 00:00:00.009930+00:00; {_MEND}"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _mooncake(path: Path) -> Iterator[tuple[int, TraceRow]]:
    for number, line in _lines(path):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise TraceError(f"{path}, line {number}: not a JSON object; give the file's own `format`, or {_MEND}")
        if missing := [name for name in _MOONCAKE_FIELDS if name not in content]:
            raise TraceError(f"{path}, line {number}: the field {missing[0]} is missing; {_MEND}")
        at_ms, *lengths, ids = (content[name] for name in _MOONCAKE_FIELDS)
        if type(at_ms) not in (int, float) or not -_MOST_MS < at_ms < _MOST_MS:  # NaN is neither
            raise TraceError(f"{path}, line {number}: timestamp is {at_ms!r:.80}, and must be milliseconds; {_MEND}")
        input_tokens, output_tokens = (
            _count(value, name, path, number) for value, name in zip(lengths, _MOONCAKE_FIELDS[1:3], strict=True)
        )
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise TraceError(f"{path}, line {number}: hash_ids must be a list of whole numbers; {_MEND}")
        if len(ids) != (blocks := -(-input_tokens // HASHED_TOKENS)):
            raise TraceError(
                f"{path}, line {number}: hash_ids has {len(ids)} ids, and a prompt of {input_tokens} tokens has "
                f"{blocks} blocks of {HASHED_TOKENS}; {_MEND}"
            )
        yield number, TraceRow(at_ms / 1000, input_tokens, output_tokens, tuple(ids))


_MEND = "mend or remove the line"
_LONGEST_LINE = 100_000
"""Characters: ten thousand hashes, a prompt of five million tokens. What is longer is no text with a line per request,
and would be read into memory whole."""
_MOST_DIGITS = 9
_MOST_MS = 1e15
"""Thirty thousand years. Beyond it milliseconds are no longer told apart, or are no float at all."""
_READERS = {"azure": _azure, "mooncake": _mooncake}
_FIELDS = {"azure": _AZURE_COLUMNS, "mooncake": _MOONCAKE_FIELDS}


def _count(value: Any, name: str, path: Path, number: int) -> int:
    if type(value) is not int or not 0 <= value < 10**_MOST_DIGITS:
        raise TraceError(
            f"{path}, line {number}: {name} is {value!r:.80}, and must be a whole number of tokens from 0 up, of "
            f"{_MOST_DIGITS} digits at most; {_MEND}"
        )
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that isn't empty."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise TraceError(
                        f"{path}, line {number}: longer than {_LONGEST_LINE:,} characters; give a trace with one line "
                        "for each request"
                    )
                if text := line.strip():
                    yield number, text
    except OSError as error:
        raise TraceError(
            f"trace: {path} can't be read ({error.strerror}); name a file below load-tests/traces/"
        ) from None
    except UnicodeDecodeError:
        raise TraceError(f"{path}, line {number + 1}: not UTF-8; give a trace as text, unpacked") from None
