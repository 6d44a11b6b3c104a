"""A figure: what was measured, its bound, and whether it was met.

Doesn't belong here: measuring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One line of the result. A figure without a bound is context for one that has."""

    benchmark: str
    name: str
    value: float | None
    """None: the run gave nothing to measure; `note` says why."""
    unit: str
    at_most: float | None = None
    note: str = ""
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """None without a bound, or without a value to hold against it."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest of `values` that at least the share `q` of them doesn't exceed. Raises `ValueError` without values.

    No interpolation: with fewer than 1 / (1 - q) values it is their maximum, which errs on the unfavourable side.
    """
    if not values:
        raise ValueError("there are no values")
    return sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]


def table(figures: Sequence[Figure]) -> Table:
    """The figures as a table for a terminal. Notes don't fit beside them: see `notes`."""
    shown = Table(title="Benchmarks", title_justify="left")
    shown.add_column("figure", no_wrap=True)
    shown.add_column("value", justify="right", no_wrap=True)
    shown.add_column("bound", justify="right", no_wrap=True)
    shown.add_column("met", no_wrap=True)
    former = None
    for figure in figures:
        if figure.benchmark != former:
            shown.add_section()
            shown.add_row(f"[bold]{figure.benchmark}[/]")
            former = figure.benchmark
        value = f"{figure.value:,.2f} {figure.unit}" if figure.value is not None else "-"
        bound = f"≤ {figure.at_most:g} {figure.unit}" if figure.at_most is not None else ""
        bound = f"≥ {figure.at_least:g} {figure.unit}" if figure.at_least is not None else bound
        met = {True: "yes", False: "[bold red]NO[/]", None: "not measured" if bound else ""}
        shown.add_row(f"  {figure.name}", value, bound, met[figure.met])
    return shown


def notes(figures: Sequence[Figure]) -> list[str]:
    """What a reader of the table should know of some figures, a line each."""
    return [f"{figure.benchmark}, {figure.name}: {figure.note}" for figure in figures if figure.note]
