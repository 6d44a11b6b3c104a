"""Scrapes of a virtual Prometheus: expositions with the labels and timestamps that a real one would have given them.

Belongs here: writing them as OpenMetrics. Doesn't belong here: making blocks of the file and asking it
(resources/prometheus_blocks.py), or when a scrape is due (world.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO


class Scrapes:
    """Appends to one file. `close` ends it as OpenMetrics ends; more may be appended afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._labelled: dict[tuple[str, str], str] = {}
        self.samples = 0

    def add(self, at_s: float, target: str, exposition: bytes) -> None:
        """One scrape of one target at a Unix time; `target` is the labels that Prometheus adds, without braces.

        Series that say when a counter began are left out: they tell of the wall clock.
        """
        stamp, labelled, lines = f" {at_s:.3f}\n", self._labelled, []
        for line in exposition.decode().splitlines():
            if line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            key = (target, series)
            head = labelled.get(key)
            if head is None:
                head = labelled[key] = "" if "_created" in series.partition("{")[0] else _with(series, target)
            if head:
                lines.append(f"{head} {value}{stamp}")
        self._write(lines)

    def add_series(self, at_s: float, series: Iterable[tuple[str, float]]) -> None:
        """Series with all of their labels, at a Unix time."""
        self._write([f"{name} {value!r} {at_s:.3f}\n" for name, value in series])

    def finish(self) -> None:
        """Write the end mark and everything that is pending; the file can be read now."""
        end = self._file.tell()
        self._file.write("# EOF\n")
        self._file.flush()
        self._file.seek(end)

    def close(self) -> None:
        self._file.close()

    def _write(self, lines: list[str]) -> None:
        self.samples += len(lines)
        self._file.writelines(lines)


def _with(series: str, target: str) -> str:
    name, brace, labels = series.partition("{")
    return f"{name}{{{target},{labels}" if brace else f"{name}{{{target}}}"
