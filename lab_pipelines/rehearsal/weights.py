"""Where an engine's weights lie, how long they take from there, and the bytes that a cAdvisor would count meanwhile.

Belongs here: volumes by their published limits (engine/storage.yaml), and who finds what on them. Doesn't belong
here: what a load takes beside its bytes (engine/cold_start.py), when an engine starts (resources/rehearsed_engine.py).

The first pod of a volume downloads, writes as fast as the slower of hub and volume allows, and finds in its node's page
cache what it has just written. A pod that comes later reads from the volume. Of several that share a volume one
downloads, as the hub's client locks its files, and the others read when it is done.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lab_pipelines.catalog.loader import read_model
from lab_pipelines.engine.cold_start import Spread, triangular
from lab_pipelines.engine.tables import TABLES_DIR, Confidence, Fact
from lab_pipelines.rehearsal.admission import quantity

GIB, MIB = 1024**3, 1024**2
EXPORTER = "kubelet"
CONTAINER = "vllm"


class StorageError(ValueError):
    """The values name a volume that nothing models. The message says which, and what is known."""


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Hub(_Row):
    bytes_per_s: Fact
    spread: Spread


class _DiskSize(_Row):
    name: str
    gib: int
    bytes_per_s: float
    requests_per_s: float


class _Disks(_Row):
    storage_class: str
    source: str
    confidence: Confidence
    burst_bytes_per_s: float
    burst_requests_per_s: float
    burst_s: float
    sizes: list[_DiskSize]


class _Shares(_Row):
    storage_class: str
    source: str
    confidence: Confidence
    mib_per_s: float
    mib_per_s_per_gib: list[float]


class _Table(_Row):
    hub: _Hub
    read_request_bytes: Fact
    store_spread: Spread
    disks: list[_Disks]
    shares: list[_Shares]


@cache
def _table() -> _Table:
    return read_model(TABLES_DIR / "storage.yaml", _Table)


@dataclass(frozen=True)
class Volume:
    """A place for weights. `bytes_per_s` is infinite where nothing bounds it; the burst's rate holds for `burst_s`."""

    kind: Literal["empty_dir", "disk", "share"]
    bytes_per_s: float = math.inf
    burst_bytes_per_s: float = math.inf
    burst_s: float = 0.0

    @property
    def outlives_pods(self) -> bool:
        return self.kind != "empty_dir"

    def seconds(self, amount: float) -> float:
        """How long so many bytes take in one direction."""
        fast = min(amount, self.burst_bytes_per_s * self.burst_s) if self.burst_s else 0.0
        return fast / self.burst_bytes_per_s + (amount - fast) / self.bytes_per_s


def volume_of(values: Mapping[str, Any]) -> Volume | None:
    """The volume that a vllm-stack release keeps its weights on; None where its values name none.

    Raises `StorageError`.
    """
    model = values["servingEngineSpec"]["modelSpec"][0]
    if (size := model.get("pvcStorage")) is None:
        mounted = any("emptyDir" in one for one in model.get("extraVolumes") or [])
        return Volume("empty_dir") if mounted else None
    gib, named = float(quantity(size)) / GIB, model.get("storageClass")
    for disks in _table().disks:
        fitting = [one for one in disks.sizes if one.gib >= gib]
        if disks.storage_class == named and fitting:
            request = _table().read_request_bytes.value
            return Volume(
                "disk",
                min(fitting[0].bytes_per_s, fitting[0].requests_per_s * request),
                min(disks.burst_bytes_per_s, disks.burst_requests_per_s * request),
                disks.burst_s,
            )
    for shares in _table().shares:
        if shares.storage_class == named:
            more = sum(math.ceil(rate * gib) for rate in shares.mib_per_s_per_gib)
            return Volume("share", (shares.mib_per_s + more) * MIB)
    known = ", ".join(one.storage_class for one in (*_table().disks, *_table().shares))
    raise StorageError(f"a volume of {size} of the storage class {named} has no model; known: {known}")


class _Moved(NamedTuple):
    """Bytes that a pod took in at an even pace."""

    pod: str
    over: Literal["network", "block"]
    amount: float
    from_s: float
    until_s: float

    def by(self, at_s: float) -> float:
        if at_s >= self.until_s:
            return self.amount
        return self.amount * max(0.0, at_s - self.from_s) / (self.until_s - self.from_s)


@dataclass
class Weights:
    """One release's weights on their volume, and its pods' counters."""

    name: str
    namespace: str
    volume: Volume
    amount: float
    """Bytes of the model."""
    bootstrap_s: float
    """What a load takes beside them: of this image on this machine, so that it is the same each time."""
    replicas: int = 1
    _written: bool = False
    _generation: int = 0
    _since_s: float = math.inf
    _moved: list[_Moved] = field(default_factory=list)

    def load(self, from_s: float, numbers: random.Random, *, same_pod: bool = False) -> float:
        """Begin to load at `from_s`; the seconds until every replica has the weights in its memory.

        `same_pod`: a container that restarts in its pod, whose emptyDir is still there.
        """
        slack = triangular(numbers.random(), _table().store_spread)
        self._since_s = from_s
        if not same_pod:
            self._generation += 1
            self._moved = []
            self._written = self._written and self.volume.outlives_pods
        took_s = self._read(from_s, slack) if self._written else self._download(from_s, slack, numbers)
        self._written = True
        return took_s

    def gone(self) -> None:
        """The engine is stopped: its pods' counters are seen no more."""
        self._since_s = math.inf

    def series(self, at_s: float) -> Iterator[tuple[str, float]]:
        """What a cAdvisor would show of the pods: received bytes, reads of block devices and their bytes."""
        if at_s < self._since_s:
            return
        for pod in self._pods():
            own = [one for one in self._moved if one.pod == pod]
            received, read = (sum(one.by(at_s) for one in own if one.over == over) for over in ("network", "block"))
            yield self._series("container_network_receive_bytes_total", pod=pod, interface="eth0"), received
            requests = read // _table().read_request_bytes.value
            yield self._series("container_fs_reads_total", pod=pod, container=CONTAINER), requests
            yield self._series("container_fs_reads_bytes_total", pod=pod, container=CONTAINER), read

    def _download(self, from_s: float, slack: float, numbers: random.Random) -> float:
        hub = _table().hub
        hub_s = self.amount / hub.bytes_per_s.value * triangular(numbers.random(), hub.spread)
        took_s = max(hub_s, self.volume.seconds(self.amount) * slack)
        first, *others = self._pods()
        alone = [first, *others] if self.volume.kind == "empty_dir" else [first]
        self._moved += [_Moved(pod, "network", self.amount, from_s, from_s + took_s) for pod in alone]
        waiting = 0 if self.volume.kind == "empty_dir" else len(others)
        return took_s + self.volume.seconds(waiting * self.amount) * slack

    def _read(self, from_s: float, slack: float) -> float:
        if self.volume.kind == "empty_dir":  # in the page cache of its node
            return 0.0
        took_s = self.volume.seconds(self.replicas * self.amount) * slack
        if self.volume.kind == "disk":
            self._moved += [_Moved(pod, "block", self.amount, from_s, from_s + took_s) for pod in self._pods()]
        return took_s

    def _pods(self) -> list[str]:
        return [f"{self.name}-{self._generation}-{number}" for number in range(self.replicas)]

    def _series(self, metric: str, **labels: str) -> str:
        where = {"instance": EXPORTER, "job": EXPORTER, "namespace": self.namespace, **labels}
        listed = ",".join(f'{name}="{value}"' for name, value in where.items())
        return f"{metric}{{{listed}}}"
