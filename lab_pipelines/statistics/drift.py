"""One number over many runs of the same lab: levels that it keeps, steps between them, and single runs that lie apart.

Belongs here: what is a step, what is an outlier, and what is noise. Doesn't belong here: one run's series (steady.py),
whether the newest run is worse than it may be (lab_pipelines/regression.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from lab_pipelines.statistics.estimate import Series, as_array

if TYPE_CHECKING:
    import numpy as np

State = Literal["steady", "stepped", "unknown"]

ALPHA = 0.055
"""Share of steady series in which chance makes a step, under `DEPENDENCE`; one in a hundred where runs are independent.
Of fewer than fifteen runs up to 0.06: their ranks have few orders, and the next share below is 0.04, which would miss
one step in seven."""
_OF_SPELLS = 0.01
"""The part of `ALPHA` spent on spells; the rest is for steps that stay."""
_ALPHA_SHORT = 0.06
DEPENDENCE = 0.3
"""Correlation of neighbouring runs under which these shares hold: what warms a machine warms the next run, too."""
MIN_SEGMENT = 5
"""Runs of a level. With fewer, dependent noise looks like a step more often than a step does."""
MIN_RUNS = 2 * MIN_SEGMENT
OUTLIER = 5.0
"""Scales off its level. Of normal runs, one series in 33 (ten runs) to 300 (sixty) has one there by chance."""
_DRAWS = 20_000
_LONG = 100
"""Runs from which a twentieth of the draws will do: there the statistics have many values."""


@dataclass(frozen=True)
class Level:
    """Runs `start` to `end`, that one excluded, and their median."""

    start: int
    end: int
    value: float


@dataclass(frozen=True)
class Drift:
    """`levels` in order; more than one: `stepped`. Empty where the runs are too few to tell.

    `outliers` are indices of runs that lie apart from their level. `unsettled` of them are the last ones, two or more
    in a row on one side: a step that is too young to be told from outliers. `scale` is the spread of the runs about
    their level as a standard deviation, robustly; None where the runs are too few.
    """

    state: State
    levels: tuple[Level, ...]
    outliers: tuple[int, ...]
    unsettled: int
    scale: float | None
    reason: str

    @property
    def steps(self) -> list[float]:
        """Each step, relative to the level before it."""
        return [after.value / before.value - 1 for before, after in pairwise(self.levels) if before.value]

    def of_last_level(self) -> list[int]:
        """Indices of the runs that tell today's level: those since the last step, without outliers."""
        first = self.levels[-1].start if self.levels else 0
        last = self.levels[-1].end if self.levels else 0
        return [index for index in range(first, last) if index not in self.outliers]


def drift(series: Series) -> Drift:
    """Splits the runs into levels wherever their ranks say so, and names the runs that lie apart from theirs.

    A step is where the ranks before and after differ most, by the standardised Wilcoxon statistic over all places with
    `MIN_SEGMENT` runs on both sides (Pettitt 1979, A non-parametric approach to the change-point problem). A spell that
    comes and goes is two steps, found by the ranks within it against those around it (Olshen and others 2004, Circular
    binary segmentation). Each part is then looked at in the same way. Ranks leave an outlier no more weight than any
    other extreme, and a single run that stands out from both its sides is taken for one of them. What chance brings is
    drawn: the statistics' distribution for normal runs that depend on each other by `DEPENDENCE`. A slow trend is told
    as several steps. Outliers lie more than `OUTLIER` scales from their level's median; the scale is the median
    absolute deviation about the levels.
    """
    import numpy as np

    values = as_array(series)
    n = len(values)
    if n < MIN_RUNS:
        return Drift("unknown", (), (), 0, None, f"too few runs: {n}; steps are told from outliers from {MIN_RUNS} on")
    edges = [0, *_steps(_without_spikes(values[None, :])[0], 0), n]
    levels = tuple(Level(start, end, float(np.median(values[start:end]))) for start, end in pairwise(edges))
    residuals = values - np.repeat([level.value for level in levels], [level.end - level.start for level in levels])
    # A median within each level takes up one run's freedom, as a mean would.
    freedom = (n / (n - len(levels))) ** 0.5
    scale = 1.4826 * freedom * float(np.median(np.abs(residuals)))
    rounding = 1e-9 * float(np.abs(values).max())
    outliers = tuple(int(index) for index in np.flatnonzero(np.abs(residuals) > max(OUTLIER * scale, rounding)))
    unsettled = _unsettled(residuals, outliers)
    state = "stepped" if len(levels) > 1 else "steady"
    return Drift(state, levels, outliers, unsettled, scale, _said(state, levels, outliers, unsettled))


def _without_spikes(series: np.ndarray) -> np.ndarray:
    """Each series (a row) with single runs that stand out from both sides brought to the nearer side's mean of two.

    At a step a run is like those of one side, and stays. The scale is from the differences of neighbours, in which a
    step counts once.
    """
    import numpy as np

    scale = 1.4826 * np.median(np.abs(np.diff(series, axis=1)), axis=1, keepdims=True) / 2**0.5
    before, after = np.full_like(series, np.nan), np.full_like(series, np.nan)
    pairs = (series[:, 1:] + series[:, :-1]) / 2
    before[:, 2:], after[:, :-2] = pairs[:, :-1], pairs[:, 1:]
    before[:, 1], after[:, -2] = series[:, 0], series[:, -1]
    low, high = np.fmin(before, after), np.fmax(before, after)
    return np.where(series > high + OUTLIER * scale, high, np.where(series < low - OUTLIER * scale, low, series))


def _steps(values: np.ndarray, offset: int) -> list[int]:
    """Indices of the first run of each level but the first."""
    n = len(values)
    if n < MIN_RUNS:
        return []
    from scipy.stats import rankdata

    sums = _rank_sums(rankdata(values)[None, :])
    for places, limit in zip((_splits(n), _spells(n)), _thresholds(n), strict=True):
        heights = _heights(sums, *places)[0]
        if len(heights) and heights.max() >= limit:
            best = int(heights.argmax())
            edges = [0, *(int(side[best]) for side in places if side[best] > 0), n]
            parts = [_steps(values[start:end], offset + start) for start, end in pairwise(edges)]
            return sorted([*(offset + edge for edge in edges[1:-1]), *(at for part in parts for at in part)])
    return []


def _splits(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The first part's start and end, wherever `n` runs may be split in two."""
    import numpy as np

    ends = np.arange(MIN_SEGMENT, n - MIN_SEGMENT + 1)
    return np.zeros_like(ends), ends


def _spells(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of all spells that leave a level before and after them."""
    import numpy as np

    starts, ends = np.triu_indices(n + 1, k=MIN_SEGMENT)
    inside = (starts >= MIN_SEGMENT) & (ends <= n - MIN_SEGMENT)
    return starts[inside], ends[inside]


def _rank_sums(ranks: np.ndarray) -> np.ndarray:
    """Of each row of ranks its sums up to each place, their expectation taken off; one more than there are runs."""
    import numpy as np

    count, n = ranks.shape
    return np.concatenate([np.zeros((count, 1)), np.cumsum(ranks - (n + 1) / 2, axis=1)], axis=1)


def _heights(sums: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Of each row the standardised difference between the ranks from `starts` to `ends` and all others."""
    import numpy as np

    n, runs = sums.shape[1] - 1, ends - starts
    # Rounded: sums of the same ranks differ in their last digit.
    return (np.abs(sums[:, ends] - sums[:, starts]) / np.sqrt(runs * (n - runs) * (n + 1) / 12)).round(6)


@cache
def _thresholds(n: int) -> tuple[float, float]:
    """The heights of a split and of a spell that steady series of `n` runs reach as seldom as they may."""
    import numpy as np
    from scipy.stats import rankdata

    draws = _DRAWS if n < _LONG else _DRAWS // 20
    noise = np.random.default_rng(n).standard_normal((draws, n))
    for index in range(1, n):
        noise[:, index] = DEPENDENCE * noise[:, index - 1] + (1 - DEPENDENCE**2) ** 0.5 * noise[:, index]
    sums = _rank_sums(rankdata(_without_spikes(noise), axis=1))
    splits, spells = _splits(n), _spells(n)
    if not len(spells[0]):
        return _reached_by(_heights(sums, *splits).max(axis=1), _ALPHA_SHORT), float("inf")
    # In pieces: of a hundred runs there are four thousand spells.
    highest = [_heights(piece, *spells).max(axis=1) for piece in np.array_split(sums, max(1, n * n // 100))]
    return (
        _reached_by(_heights(sums, *splits).max(axis=1), ALPHA - _OF_SPELLS),
        _reached_by(np.concatenate(highest), _OF_SPELLS),
    )


def _reached_by(highest: np.ndarray, share: float) -> float:
    """The smallest value that at most `share` of `highest` reach."""
    import numpy as np

    values, times = np.unique(highest, return_counts=True)
    reaching = np.cumsum(times[::-1])[::-1] / len(highest)
    return float(values[reaching <= share][0])


def _unsettled(residuals: np.ndarray, outliers: tuple[int, ...]) -> int:
    last, count = len(residuals) - 1, 0
    while last - count in outliers and residuals[last - count] * residuals[last] > 0:
        count += 1
    return count if count > 1 else 0


def _said(state: State, levels: tuple[Level, ...], outliers: tuple[int, ...], unsettled: int) -> str:
    n = levels[-1].end
    apart = f"{len(outliers)} of {n} runs lie apart" if outliers else "no run lies apart"
    if unsettled:
        apart += f", the last {unsettled} of them together: perhaps a step, which takes {MIN_SEGMENT} runs to tell"
    if state == "steady":
        return f"no step in {n} runs; {apart}"
    changes = ", ".join(
        f"{after.value / before.value - 1:+.1%} from run {after.start + 1} on" if before.value else "from zero"
        for before, after in pairwise(levels)
    )
    return f"{len(levels) - 1} {'step' if len(levels) == 2 else 'steps'} in {n} runs: {changes}; {apart}"
