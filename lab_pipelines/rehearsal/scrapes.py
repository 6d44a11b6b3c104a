"""Scrapes of a virtual Prometheus: expositions with the labels and timestamps that a real one would have given them.

Belongs here: writing them as OpenMetrics. Doesn't belong here: making blocks of the file and asking it
(resources/prometheus_blocks.py), or when a scrape is due (world.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO


class ScrapeTarget:
    """One server's metrics page. `labels` are those that Prometheus adds to each series of it, without braces.

    Series that say when a counter began are left out: they tell of the wall clock.
    """

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self._lines = 0
        self._series: list[tuple[int, int, str]] = []
        """Of each series that is kept: its line in a page, the length of its name there, and its name here."""

    def samples(self, at_s: float, page: bytes) -> list[str]:
        """The page's samples as lines of OpenMetrics. A page only ever grows: its lines stay in their order."""
        lines = page.decode().splitlines()
        if len(lines) != self._lines:
            self._learn(lines)
        stamp = _stamp(at_s)
        return [f"{name}{lines[number][length:]}{stamp}" for number, length, name in self._series]

    def _learn(self, lines: list[str]) -> None:
        self._lines, self._series = len(lines), []
        for number, line in enumerate(lines):
            series = line.rpartition(" ")[0]
            if not line.startswith("#") and not series.partition("{")[0].endswith("_created"):
                self._series.append((number, len(series), self._labelled(series)))

    def _labelled(self, series: str) -> str:
        name, brace, labels = series.partition("{")
        return f"{name}{{{self.labels},{labels}" if brace else f"{name}{{{self.labels}}}"


class Scrapes:
    """Appends to one file. `finish` ends it as OpenMetrics ends; more may be appended afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("w", encoding="utf-8")

    def add(self, at_s: float, target: ScrapeTarget, page: bytes) -> None:
        """One scrape of one target at a Unix time."""
        self._file.writelines(target.samples(at_s, page))

    def add_series(self, at_s: float, series: Iterable[tuple[str, float]]) -> None:
        """Series with all of their labels, at a Unix time."""
        stamp = _stamp(at_s)
        self._file.writelines(f"{name} {value!r}{stamp}" for name, value in series)

    def finish(self) -> None:
        """Write the end mark and everything that is pending; the file can be read now."""
        end = self._file.tell()
        self._file.write("# EOF\n")
        self._file.flush()
        self._file.seek(end)

    def close(self) -> None:
        self._file.close()


def _stamp(at_s: float) -> str:
    return f" {at_s:.3f}\n"
