"""How much of the serving time went into reading prompts (prefill) and how much into writing answers (decode). Pure.

Belongs here: the split of the time that cost.py calls `serve`, by what the client saw of each request.
Doesn't belong here: the split of node time into serve, idle, cold start and failed (cost.py), or dollars (finops.py).

As in cost.py an instant of node time is shared equally among the requests in flight, and the shares of those that
failed in the end are no serving. The rest of the instant is shared equally among the requests that were being worked
on:

- a request writes its answer (decode) from its first token to its end;
- it was read (prefill) before its first token, for as long as the fastest first token among the session's successful
  requests of the same prompt length took. Whatever it took beyond that it waited, and used nothing. With 400 requests
  at once and 24 of them running, waiting would otherwise make the prompts nearly the whole cost;
- an instant in which all of them wait belongs to the prompts that they wait to have read.

OpenCost's inference cost (docs/inference-cost-tracking.md, v1) splits by the ratio of the engine's own sums of prefill
and decode seconds instead. That weights an instant by the requests in it and needs vLLM's metrics; this works with any
server that streams, and its parts add up to the serving time. Neither knows which share of a step that mixes both did
what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Window = tuple[int, int]
"""Start and end in microseconds of the wall clock."""


@dataclass(frozen=True)
class PhaseTime:
    """Wall seconds of one node's serving time, by what they were spent on. Their sum is the requests' serving time."""

    prefill_s: float
    decode_s: float

    def __add__(self, other: PhaseTime) -> PhaseTime:
        return PhaseTime(self.prefill_s + other.prefill_s, self.decode_s + other.decode_s)

    @property
    def prefill_share(self) -> float | None:
        """None where no request with tokens was served."""
        total = self.prefill_s + self.decode_s
        return self.prefill_s / total if total > 0 else None


NO_TIME = PhaseTime(0.0, 0.0)


@dataclass(frozen=True)
class TimedRequest:
    """A request on the server, in microseconds of the wall clock."""

    sent_us: int
    first_token_us: int | None
    """None: no token came."""
    finished_us: int
    input_tokens: int | None
    """None: it asked for no tokens, as a plain GET does."""
    failed: bool

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> TimedRequest:
        """From a row of those names."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def phase_times(windows: Sequence[Window], requests: Sequence[TimedRequest]) -> list[PhaseTime]:
    """The split of the serving time within each window. Windows may overlap; time linear in the rows, but for a sort.

    An instant shared with requests that ask for no tokens counts for what is shared by the others.
    """
    import numpy as np

    lasting = [r for r in requests if r.sent_us < r.finished_us]
    if not lasting or not windows:
        return [NO_TIME for _ in windows]
    sent = np.array([r.sent_us for r in lasting], dtype=np.int64)
    ended = np.array([r.finished_us for r in lasting], dtype=np.int64)
    failed = np.array([r.failed for r in lasting])
    served = ~failed & np.array([r.input_tokens is not None for r in lasting])
    # A request without a token was read, or waited for it, until it ended.
    first = np.array([r.finished_us if r.first_token_us is None else r.first_token_us for r in lasting], dtype=np.int64)
    first = np.clip(first, sent, ended)
    read_from = np.maximum(sent, first - np.array(_fastest(lasting), dtype=np.int64))

    edges = np.array(windows, dtype=np.int64)
    moments, found = np.unique(np.concatenate([sent, read_from, first, ended, edges.ravel()]), return_inverse=True)
    sent_at, read_at, first_at, ended_at = np.split(found[: 4 * len(lasting)], 4)
    length = np.diff(moments)

    def count(starts: NDArray[np.intp], ends: NDArray[np.intp]) -> NDArray[np.int64]:
        """How many of the spans, given by the positions of their ends in `moments`, cover each interval between two."""
        size = len(moments)
        return np.cumsum(np.bincount(starts, minlength=size) - np.bincount(ends, minlength=size))[:-1]

    flying = count(sent_at, ended_at)
    ours = count(sent_at[served], ended_at[served])
    reading = count(read_at[served], first_at[served])
    writing = count(first_at[served], ended_at[served])
    working = reading + writing
    serving = length * ours / np.maximum(flying, 1)
    prefill = serving * np.where(working > 0, reading / np.maximum(working, 1), 1.0)

    def within(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        reached = np.concatenate([[0.0], np.cumsum(seconds)])
        at = found[4 * len(lasting) :].reshape(edges.shape)
        return (reached[at[:, 1]] - reached[at[:, 0]]) / 1e6

    return [
        PhaseTime(float(of_input), max(float(of_both - of_input), 0.0))
        for of_input, of_both in zip(within(prefill), within(serving), strict=True)
    ]


def _fastest(requests: Sequence[TimedRequest]) -> list[int]:
    """For each request, the shortest time to a first token among the successful ones of its prompt length."""
    fastest: dict[int | None, int] = {}
    for one in requests:
        if not one.failed and one.first_token_us is not None:
            took = max(one.first_token_us - one.sent_us, 0)
            fastest[one.input_tokens] = min(took, fastest.get(one.input_tokens, took))
    # Where none ever got one, nothing tells waiting from reading.
    return [fastest.get(one.input_tokens, one.finished_us - one.sent_us) for one in requests]
