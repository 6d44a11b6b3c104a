"""Scrapes of a virtual Prometheus: expositions with the labels and timestamps that a real one would have given them.

Belongs here: writing them as OpenMetrics. Doesn't belong here: making blocks of the file and asking it
(resources/prometheus_blocks.py), or when a scrape is due (world.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
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
    """Written to one file after the other in `folder`. A file is of use only when it is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._file = self._next()
        self.pages = 0
        """Of targets, since the last cut."""

    def add(self, at_s: float, target: ScrapeTarget, page: bytes) -> None:
        """One scrape of one target at a Unix time."""
        self.pages += 1
        self._file.write("".join(target.samples(at_s, page)))

    def add_series(self, at_s: float, series: Iterable[tuple[str, float]]) -> None:
        """Series with all of their labels, at a Unix time."""
        stamp = _stamp(at_s)
        self._file.writelines(f"{name} {value!r}{stamp}" for name, value in series)

    def cut(self) -> Path:
        """Complete the file of all scrapes since the last cut, and go on in another."""
        self._file.write("# EOF\n")
        self._file.close()
        complete, self._file = Path(self._file.name), self._next()
        self.pages = 0
        return complete

    def discard(self) -> None:
        """Nobody will ask for what has come since the last cut."""
        self._file.close()
        Path(self._file.name).unlink()

    def _next(self) -> TextIO:
        return (self._folder / f"scrapes-{next(self._numbers)}.om").open("w", encoding="utf-8")


def _stamp(at_s: float) -> str:
    return f" {at_s:.3f}\n"
