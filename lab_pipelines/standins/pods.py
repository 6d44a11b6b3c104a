"""The state of a local stack's components as pods: which runs, and how often each was restarted.

Written by whoever starts and stops the components, read by the stand-in for kube-state-metrics (pod_metrics.py).
Doesn't belong here: metrics, or processes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pod:
    """One component. `restarts` counts the lives of the same pod after its first, as Kubernetes does."""

    restarts: int
    running: bool


def write_pods(path: Path, pods: Mapping[str, Pod]) -> None:
    """Publish the state of every component, whole, so that no scrape sees half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps({component: asdict(pod) for component, pod in pods.items()}), encoding="utf-8")
    draft.replace(path)


def read_pods(path: Path) -> dict[str, Pod]:
    """The state as it was last written. Raises `OSError` or `ValueError` if there is none that can be read."""
    return {component: Pod(**pod) for component, pod in json.loads(path.read_text(encoding="utf-8")).items()}
