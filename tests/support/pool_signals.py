"""Signals of node pools as a test wants them, and series of a cluster for a real Prometheus.

Doesn't belong here: the queries (resources/pool_signals.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from lab_pipelines.gpu_policy import NO_SIGNAL, Signal
from resources.pool_signals import PoolSignals
from resources.telemetry import TelemetryError

QUIET = Signal(value=0.0, age_s=10.0, reporting=1, expected=1)
BUSY = Signal(value=3.0, age_s=10.0, reporting=1, expected=1)


class FileSignals(PoolSignals):
    """The signals in `folder`; without a file there, a Prometheus that doesn't answer."""

    folder: str

    def put(self, signals: Mapping[str, tuple[Signal, Signal]]) -> None:
        text = json.dumps({pool: [asdict(one) for one in pair] for pool, pair in signals.items()})
        (Path(self.folder) / "signals.json").write_text(text)

    def read(self, nodes: Mapping[str, int], *, at: datetime) -> dict[str, tuple[Signal, Signal]]:
        try:
            found = json.loads((Path(self.folder) / "signals.json").read_text())
        except FileNotFoundError:
            raise TelemetryError("Prometheus did not answer within 3 s") from None
        known = {pool: (Signal(**requests), Signal(**utilisation)) for pool, (requests, utilisation) in found.items()}
        return {pool: known.get(pool, (NO_SIGNAL, NO_SIGNAL)) for pool in nodes}


def node(pool: str, number: int = 0) -> str:
    """A node's name on AKS."""
    return f"aks-{pool}-12345678-vmss{number:06d}"


def series(
    name: str, labels: Mapping[str, str], value: float, *, at_s: float, for_s: float = 60, every_s: float = 15
) -> Iterator[tuple[str, str]]:
    """(metric, line) of samples until `at_s`."""
    told = ",".join(f'{key}="{text}"' for key, text in labels.items())
    times = [at_s - every_s * number for number in range(int(for_s / every_s), -1, -1)]
    for time_s in times:
        yield name, f"{name}{{{told}}} {value:g} {time_s:.3f}"


def openmetrics(lines: Iterator[tuple[str, str]]) -> str:
    """OpenMetrics text: the lines of each metric together."""
    by_name: dict[str, list[str]] = {}
    for name, line in lines:
        by_name.setdefault(name, []).append(line)
    parts = [part for name, told in by_name.items() for part in (f"# TYPE {name} gauge", *told)]
    return "\n".join([*parts, "# EOF", ""])
