"""How each kind of component runs on this machine: its process, when it answers, what it tells of itself.

Belongs here: commands, announcements and scrape targets of one component. Doesn't belong here: the order in which a
stack comes up, leases, Prometheus (cluster_local.py), or what the processes do (lab_pipelines/engine/, standins/).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_pipelines.deployment import REPO_ROOT
from resources import processes
from resources.cluster import ClusterError, Endpoint, Phase
from resources.prometheus_server import ScrapeTarget

COMPONENT_VARIABLE = "LABS_COMPONENT"
"""Environment of a component's process, so that it is found again by any process that works for the lease."""
READY_TIMEOUT_S = 60.0


class EngineRefusedError(ClusterError):
    """The engine would not start as it was asked to. The message is its own."""


@dataclass(frozen=True)
class Place:
    """Where and how fast a stack's components run."""

    folder: Path
    environ: dict[str, str]
    time_scale: float
    cold_start_time_scale: float

    def of(self, component: str) -> dict[str, str]:
        """Environment of a component's process."""
        return {**self.environ, COMPONENT_VARIABLE: component}


@dataclass(frozen=True)
class Started:
    """A component that answers."""

    endpoint: Endpoint
    targets: list[ScrapeTarget]
    phases: list[Phase]


def start_vllm(
    name: str, arguments: list[str], gpu: str, gpus: int, place: Place, *, at: Endpoint | None = None
) -> Started:
    """The modelled vLLM server on `gpus` GPUs with their exporter; at the ports of `at` if it had some.

    Raises `EngineRefusedError` with the engine's own words, or `ClusterError`.
    """
    log = place.folder / f"{name}.jsonl"
    seen = len(read_log(log))
    ports = ["--port", _port(at.base_url), "--dcgm-port", _port(at.gpu_metrics_url)] if at else []
    options = ["--log", str(log), "--gpu", gpu, "--gpus", str(gpus), "--time-scale", f"{place.time_scale:g}"]
    options += ["--cold-start-time-scale", f"{place.cold_start_time_scale:g}", *ports, "--", *arguments]
    try:
        announced = start_process(name, "lab_pipelines.engine.serve", options, place)
    except ClusterError:
        if said := refusal_of(log, after=seen):
            raise EngineRefusedError(said) from None
        raise
    endpoint = Endpoint(
        component=name,
        kind="vllm",
        base_url=announced["base_url"],
        metrics_url=announced["metrics_url"],
        gpu_metrics_url=announced["dcgm_url"],
        log=str(log),
    )
    return Started(
        endpoint,
        [ScrapeTarget(name, announced["metrics_url"]), ScrapeTarget("dcgm-exporter", announced["dcgm_url"])],
        _phases(read_log(log)[seen:]),
    )


def refusal_of(log: Path, *, after: int) -> str | None:
    """What an engine said in its log, from line `after` on, when it would not start; None if it said no such thing."""
    for line in read_log(log)[after:]:
        if line.get("event") in ("wrong_arguments", "out_of_memory"):
            return str(line["message"])
    return None


def start_http_server(name: str, place: Place, *, at: Endpoint | None = None) -> Started:
    """The stand-in for a plain HTTP service with metrics. Raises `ClusterError`."""
    log = place.folder / f"{name}.jsonl"
    ports = ["--port", _port(at.base_url)] if at else []
    announced = start_process(
        name,
        "lab_pipelines.standins.http_server",
        ["--log", str(log), "--time-scale", f"{place.time_scale:g}", *ports],
        place,
    )
    endpoint = Endpoint(
        component=name,
        kind="http_server",
        base_url=announced["base_url"],
        metrics_url=announced["metrics_url"],
        gpu_metrics_url=None,
        log=str(log),
    )
    return Started(endpoint, [ScrapeTarget(name, announced["metrics_url"])], [])


def stop(state_dir: Path, lease_id: str, component: str) -> None:
    """End a component's processes. Raises `ClusterError` when there is none."""
    mine = [
        p
        for p in processes.find_marked(state_dir).get(lease_id, [])
        if p.environ().get(COMPONENT_VARIABLE) == component
    ]
    if not mine:
        raise ClusterError(f"component {component} is not up, so it can't be stopped")
    processes.end(mine)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a component's log, oldest first, each with its text as `line`."""
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [{**json.loads(line), "line": line} for line in lines]


def start_process(name: str, module: str, options: list[str], place: Place) -> Mapping[str, Any]:
    """Start one of our own servers and wait for what it announces. Raises `ClusterError` with the end of its output."""
    announce, output = place.folder / f"{name}.json", place.folder / f"{name}.out"
    announce.unlink(missing_ok=True)
    # Ours first: what follows a `--` among the options belongs to somebody else.
    process = processes.spawn(
        [sys.executable, "-m", module, "--announce", str(announce), *options],
        environ=place.of(name),
        log=output,
        cwd=REPO_ROOT,
    )
    return _announced(name, process, announce, output)


def _announced(name: str, process: subprocess.Popen[bytes], announce: Path, output: Path) -> Mapping[str, Any]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if announce.exists():
            return json.loads(announce.read_text(encoding="utf-8"))
        if process.poll() is not None:
            break
        time.sleep(0.02)  # a file that another process writes tells of no event
    state = f"ended with exit code {process.returncode}" if process.poll() is not None else "did not answer in time"
    tail = "\n".join(output.read_text(errors="replace").splitlines()[-5:])
    raise ClusterError(f"{name} {state}; its output ({output}) ends:\n{tail}")


def _phases(lines: list[dict[str, Any]]) -> list[Phase]:
    return [
        Phase(
            name=line["phase"],
            started_at=datetime.fromtimestamp(line["started_at"], UTC),
            ended_at=datetime.fromtimestamp(line["ended_at"], UTC),
            duration_s=line["duration_s"],
        )
        for line in lines
        if line.get("event") == "cold_start"
    ]


def _port(url: str | None) -> str:
    return str(urlsplit(url or "").port or 0)
