"""What every estimator of this package returns: a number with its interval, or the reason why it has none.

Doesn't belong here: how an interval comes about (means.py, quantiles.py, rates.py, paired.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Series: TypeAlias = "npt.ArrayLike"
"""Numbers in the order of time; yes and no count as 1 and 0."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number and its two-sided interval at the confidence that was asked for.

    `value` None: the sample has no such number. `low` and `high` None: it has no interval, and `reason` says why; it is
    never given as its value. Both ends of a quantile's are the value itself only where the values at its ranks are
    equal. `n_effective` is how many independent values would have told as much.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_effective: float | None
    method: str
    reason: str | None = None

    @property
    def bounded(self) -> bool:
        return self.low is not None


def refused(value: float | None, n: int, method: str, reason: str) -> Estimate:
    """A number without an interval."""
    return Estimate(value, None, None, n, None, method, reason)


def as_array(series: Series) -> np.ndarray:
    """The series as a vector of floats. Raises `ValueError` for one that isn't finite: a gap is not a number."""
    import numpy as np

    values = np.asarray(series, dtype=float)
    if values.ndim != 1:
        raise ValueError(f"a series has one dimension, not {values.ndim}")
    if not np.isfinite(values).all():
        raise ValueError("the series holds NaN or infinity; leave out what is not known, and say so")
    return values
