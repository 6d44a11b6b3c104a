"""How often something may be called, kept by all processes that share a data folder.

Belongs here: waiting for one's turn, and the file that remembers calls and the time before which none may be made.
Doesn't belong here: which limits somebody has (cost_query.py), or what a call is.

One call is made at a time, so that what is answered to it holds for the next, whoever makes that. It counts from its
end, the latest moment at which it may have arrived: two calls never arrive closer together than the limit says, however
long either was under way. A call whose process died is over when its timeout is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lab_pipelines.files import locked

REMEMBERED_S = 3600.0
"""No limit reaches further back."""
LOOK_AGAIN_S = 0.25
"""While another process makes its call, which ends long before its timeout."""


class Limit(NamedTuple):
    """At most `calls` in any `within_s` seconds: of one key, or of all of them together."""

    calls: int
    within_s: float
    of_one: bool


class TurnError(Exception):
    """One's turn comes too late. `at`: when it would come."""

    def __init__(self, at: datetime) -> None:
        super().__init__(f"not before {at:%Y-%m-%d %H:%M:%S} UTC")
        self.at = at


class Turn(NamedTuple):
    """A call that may be made now."""

    key: str
    number: str


@dataclass(frozen=True)
class CallLimit:
    """Takes turns at calls. `clock` is in seconds since 1970, the only clock that processes share."""

    file: Path
    limits: Sequence[Limit]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _names: Iterator[int] = field(default_factory=lambda: iter(range(2**62)), repr=False)

    def take(self, key: str, *, lasts_s: float, until: float, waiting: Callable[[float], None]) -> Turn:
        """Wait for a turn at calling `key`; the call will be over within `lasts_s`.

        `waiting` is told how long, once before it waits for the limits. Raises `TurnError` when the turn comes after
        `until`.
        """
        turn = Turn(key, f"{os.getpid()}-{next(self._names)}-{self.clock()}")
        told = False
        while True:
            with self._state() as state:
                now = self.clock()
                busy = any(call["at"] > now for call in state["calls"])
                at = max(now, state["not_before"], *(_free_at(limit, key, state["calls"]) for limit in self.limits))
                if not busy and at <= now <= until:
                    state["calls"].append({"key": key, "number": turn.number, "at": now + lasts_s})
                    return turn
            if busy and now <= until:
                self.sleep(LOOK_AGAIN_S)
                continue
            if at > until:
                raise TurnError(datetime.fromtimestamp(at, UTC))
            if not told:
                waiting(at - now)
                told = True
            self.sleep(at - now)

    def end(self, turn: Turn, *, wait_s: float = 0.0) -> None:
        """The call is over. `wait_s`: nobody may make another before that has passed."""
        with self._state() as state:
            now = self.clock()
            for call in state["calls"]:
                if call["number"] == turn.number:
                    call["at"] = now
            state["not_before"] = max(state["not_before"], now + wait_s)

    @contextmanager
    def _state(self) -> Iterator[dict[str, Any]]:
        """What is remembered, to be changed within the block by this process alone."""
        with locked(self.file.with_suffix(".lock")):
            state = self._read()
            yield state
            temporary = self.file.with_suffix(".new")
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(self.file)

    def _read(self) -> dict[str, Any]:
        now = self.clock()
        try:
            state = json.loads(self.file.read_text(encoding="utf-8"))
            calls = [one for one in state["calls"] if one["at"] > now - REMEMBERED_S]
            return {"calls": calls, "not_before": float(state["not_before"])}
        except FileNotFoundError:
            return {"calls": [], "not_before": 0.0}
        except (ValueError, TypeError, KeyError, AttributeError):
            # A file that can't be read may have said anything: as if every call had been made just now.
            return {"calls": [], "not_before": now + max(limit.within_s for limit in self.limits)}


def _free_at(limit: Limit, key: str, calls: Sequence[dict[str, Any]]) -> float:
    """When the limit allows the next call: once the last but `calls` - 1 is out of its window."""
    counted = sorted(call["at"] for call in calls if not limit.of_one or call["key"] == key)
    return counted[-limit.calls] + limit.within_s if len(counted) >= limit.calls else 0.0
