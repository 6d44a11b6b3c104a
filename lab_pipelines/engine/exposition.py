"""Counters, gauges and histograms that render themselves as Prometheus text quickly.

Belongs here: the three types and their text. Doesn't belong here: which series exist (vllm_metrics, dcgm_metrics).

Not prometheus_client, because a scrape shares its thread with the pacing of tokens: rendering vLLM's 600 lines took
prometheus_client 4.9 ms, longer than the error that a client may see in TTFT, and its histograms have no way to
observe one value many times. Everything about a line but its value is rendered once, when the series is made.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray


class Metric(Protocol):
    def render(self) -> str: ...


class Counter:
    """A family of counters, one series per set of labels; `suffix` and a `_created` gauge as OpenMetrics has them."""

    def __init__(
        self,
        name: str,
        help_text: str,
        series: Sequence[Mapping[str, str]],
        *,
        suffix: str = "_total",
        created: bool = True,
    ) -> None:
        self._name = name + suffix
        self._head = _head(self._name, help_text, "counter")
        self._values = dict.fromkeys((_labels(labels) for labels in series), 0.0)
        self._created = _created(name, help_text, list(self._values)) if created else ""

    def child(self, **labels: str) -> CounterChild:
        """One series, ready to be added to. Raises `KeyError` for labels that the family doesn't have."""
        return CounterChild(self._values, _labels(labels))

    def render(self) -> str:
        return self._head + _lines(self._name, self._values) + self._created


class CounterChild:
    """One series of a counter."""

    __slots__ = ("_key", "_values")

    def __init__(self, values: dict[str, float], key: str) -> None:
        _ = values[key]
        self._values, self._key = values, key

    def inc(self, amount: float = 1.0) -> None:
        self._values[self._key] += amount


class Gauge:
    """A family of gauges, one series per set of labels."""

    def __init__(self, name: str, help_text: str, series: Sequence[Mapping[str, str]], value: float = 0.0) -> None:
        self._head = _head(name, help_text, "gauge")
        self._name = name
        self._values = dict.fromkeys((_labels(labels) for labels in series), value)

    def child(self, **labels: str) -> GaugeChild:
        """One series, ready to be set. Raises `KeyError` for labels that the family doesn't have."""
        return GaugeChild(self._values, _labels(labels))

    def set_all(self, value: float) -> None:
        """Set every series; for families of one series, without rendering its labels again."""
        for key in self._values:
            self._values[key] = value

    def render(self) -> str:
        return self._head + _lines(self._name, self._values)


class GaugeChild:
    """One series of a gauge."""

    __slots__ = ("_key", "_values")

    def __init__(self, values: dict[str, float], key: str) -> None:
        _ = values[key]
        self._values, self._key = values, key

    def set(self, value: float) -> None:
        self._values[self._key] = value


class Histogram:
    """One histogram with fixed labels. `bounds` are the buckets' upper bounds, ascending, without +Inf."""

    def __init__(self, name: str, help_text: str, labels: Mapping[str, str], bounds: Sequence[float]) -> None:
        self.bounds = [float(bound) for bound in bounds]
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0
        plain = _labels(labels)
        les = [*(repr(bound) for bound in self.bounds), "+Inf"]
        self._prefixes = [f"{name}_bucket{_labels({**labels, 'le': le})} " for le in les]
        self._head = _head(name, help_text, "histogram")
        self._count_prefix, self._sum_prefix = f"{name}_count{plain} ", f"{name}_sum{plain} "
        self._created = _created(name, help_text, [plain])

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self.bounds, value)] += times
        self._sum += value * times

    def observe_all(self, values: NDArray[float64], times: int) -> None:
        """Each of many values, so many times."""
        import numpy as np

        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self._counts))
        for index in found.nonzero()[0].tolist():
            self._counts[index] += int(found[index]) * times
        self._sum += float(values.sum()) * times

    def render(self) -> str:
        lines, total = [self._head], 0
        for prefix, count in zip(self._prefixes, self._counts, strict=True):
            total += count
            lines.append(f"{prefix}{total}.0\n")
        lines.append(f"{self._count_prefix}{total}.0\n{self._sum_prefix}{self._sum!r}\n{self._created}")
        return "".join(lines)


def render(metrics: Sequence[Metric]) -> bytes:
    """The text of all of them, in order."""
    return "".join(metric.render() for metric in metrics).encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in sorted(labels.items()))
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _head(name: str, help_text: str, kind: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


def _created(name: str, help_text: str, labels: Sequence[str]) -> str:
    now = time.time()
    return _head(f"{name}_created", help_text, "gauge") + "".join(f"{name}_created{key} {now!r}\n" for key in labels)


def _lines(name: str, values: Mapping[str, float]) -> str:
    return "".join([f"{name}{key} {value!r}\n" for key, value in values.items()])
