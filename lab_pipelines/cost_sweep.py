"""The sweep over requests in flight, for any number of sessions at once, and the rounding of its results.

Belongs here: arithmetic on columns. Doesn't belong here: what the columns mean in a lab (cost.py).

All sessions lie one after the other on one axis of time, so that one sweep serves them all: it takes as long for a
year of sessions as it takes for all of their requests. NumPy is imported where it is needed: definitions load without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


class Steps(NamedTuple):
    """A function of time that is constant between edges: `values[i]` from `edges[i]` to `edges[i + 1]`.

    The last edge has no value. An edge may stand there twice; what lies between has no length.
    """

    edges: Ints
    values: NDArray[Any]

    def at(self, moments: Ints) -> NDArray[Any]:
        """The value from each moment on; at the last edge, the last one."""
        import numpy as np

        return self.values[np.searchsorted(self.edges[:-1], moments, side="right") - 1]


class Spent(NamedTuple):
    """Weighted time of each window, by what it was for."""

    serve: Floats
    failed: Floats
    idle: Floats


def sweep(windows: Steps, weights: Steps, starts: Ints, ends: Ints, failed: Flags) -> Spent:
    """Time with at least one request in flight, less what those that failed had of it; that; and time without any.

    In every instant time is shared equally among the requests in flight. `windows` and `weights` cover the same span;
    a window's values are its number, from 0, which several may share; the time in it counts as often as `weights` say.
    Requests lie within the span, and each begins before it ends.
    """
    import numpy as np

    # A moment may stand there twice: what lies between has no length. To find those takes longer than to carry them.
    moments = np.sort(np.concatenate([starts, ends, windows.edges, weights.edges]))
    now, length = moments[:-1], np.diff(moments).astype(np.float64)
    in_flight = _in_flight(now, starts, ends)
    failing = _in_flight(now, starts[failed], ends[failed])
    busy = in_flight > 0
    window = windows.at(now)
    time = length * weights.at(now)
    lost, flying = failing[busy], in_flight[busy]
    number = int(windows.values.max(initial=-1)) + 1

    def summed(where: Ints, what: Floats) -> Floats:
        return np.bincount(where, weights=what, minlength=number).astype(np.float64, copy=False)

    return Spent(
        serve=summed(window[busy], time[busy] * (flying - lost) / flying),
        failed=summed(window[busy], time[busy] * lost / flying),
        idle=summed(window[~busy], time[~busy]),
    )


def _in_flight(now: Ints, starts: Ints, ends: Ints) -> Ints:
    """How many intervals each moment of `now` lies in, its end excluded."""
    import numpy as np

    begun = np.searchsorted(np.sort(starts), now, side="right")
    return begun - np.searchsorted(np.sort(ends), now, side="right")


def largest_remainders(exact: Floats, group: Ints, totals: Ints) -> Ints:
    """Whole numbers near `exact` that sum to the total of their group: rounded down, and what is left goes one each to
    the largest remainders.

    `group` is the number of each value's group, in ascending order. Raises `ValueError` where a total is not what the
    values sum to, to the nearest whole number or, on account of their own last bits, beside it.
    """
    import numpy as np

    whole = np.floor(exact)
    units = whole.astype(np.int64)
    summed = np.zeros(len(totals), np.int64)
    np.add.at(summed, group, units)
    size = np.bincount(group, minlength=len(totals))
    left = totals - summed
    if np.any((left < 0) | (left > size)):
        raise ValueError("the parts of a session do not sum to its node time")
    # Ordered by group, then by remainder from the largest on, then by place.
    order = np.lexsort((whole - exact, group))
    rank = np.arange(len(exact)) - np.repeat(np.cumsum(size) - size, size)
    units[order[rank < left[group[order]]]] += 1
    return units
