"""The one thread on which scheduler, kubelet and controllers of the double do their work, each piece at its time.

Belongs here: doing something soon or later. Doesn't belong here: what is done.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Loop:
    """Runs what it is given under `lock`, in the order of its time; a context manager."""

    def __init__(self, lock: threading.Condition) -> None:
        self._lock = lock
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._woken = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._woken:
            self._closing = True
            self._woken.notify()
        self._thread.join()

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        with self._woken:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), work))
            self._woken.notify()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            with self._lock:
                work()

    def _next(self) -> Callable[[], None] | None:
        with self._woken:
            while not self._closing:
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._woken.wait(wait_s)
        return None
