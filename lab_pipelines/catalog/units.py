"""Units that a measure may have, and how each one reads a clock.

A stack may run in a declared time dilation: `time_scale` stack seconds pass in one wall second (1 on every
real stack). Servers observe their own histograms in stack seconds, but a PromQL `rate()` divides by
Prometheus's wall seconds. So a unit "per second" must be divided by `time_scale`, and no other unit may be.
"""

from __future__ import annotations

PER_WALL_SECOND = frozenset({"tokens/s", "requests/s", "bytes/s"})

UNITS = PER_WALL_SECOND | {
    "s",
    "ratio",
    "percent",
    "requests",
    "tokens",
    "preemptions",
    "bytes",
    "mebibytes",
    "watts",
    "celsius",
    "megahertz",
    "blocks",
    "count",
    "USD",
    "hours",
    "minutes",
}


def to_stack_time(value: float, unit: str, time_scale: float) -> float:
    """A value as PromQL returned it, in stack time. `time_scale` = stack seconds per wall second, > 0."""
    return value / time_scale if unit in PER_WALL_SECOND else value
