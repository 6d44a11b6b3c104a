"""Durations as Prometheus and Alertmanager write them, and how a stack that runs faster than the wall clock reads them.

Belongs here: text to milliseconds and back, and their scaling. Doesn't belong here: which field is a duration.
Format: prometheus.io/docs/prometheus/latest/querying/basics, "Time durations".
"""

from __future__ import annotations

import re

_UNITS_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
PATTERN = r"(?:[0-9]+(?:ms|[smhdwy]))+"
"""Matches one duration. Prometheus also wants each unit once, the larger ones first; promtool checks that."""


def to_ms(text: str) -> int:
    """`1h30m` as milliseconds. Raises `ValueError` for what is no duration."""
    if text == "0":
        return 0
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in re.findall(r"([0-9]+)(ms|[smhdwy])", text))


def from_ms(milliseconds: int) -> str:
    """A duration that Prometheus reads, exact to the millisecond."""
    return f"{milliseconds}ms"


def scaled(text: str, time_scale: float) -> str:
    """The wall time that `text`, in stack time, lasts on a stack that runs `time_scale` times as fast.

    At least one millisecond, unless it is zero. Raises `ValueError`.
    """
    milliseconds = to_ms(text)
    return from_ms(max(round(milliseconds / time_scale), 1) if milliseconds else 0)
