"""The local target: the modelled vLLM server and a real Prometheus, as processes on loopback ports of this machine.

Doesn't belong here: leases (cluster_loopback.py), the engine's timing (lab_pipelines/engine/), an engine that is not
ours (cluster_external.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.digest import canonical_digest
from lab_pipelines.engine.cold_start import cold_start_plan
from resources import chart_values, processes, prometheus_server
from resources.cluster import ClusterError, Phase, Progress, Session, StackOrder
from resources.cluster_loopback import LoopbackCluster, first_token, scrape_interval_s
from resources.prometheus_server import ScrapeTarget

READY_TIMEOUT_S = 60.0


class LocalCluster(LoopbackCluster):
    """The modelled vLLM server and a real Prometheus that scrapes it.

    Node, driver and image phases of the cold start are waited for at `cold_start_time_scale` stack seconds per wall
    second; the server plays its own phases, at the same scale, before it binds its port.
    """

    cold_start_time_scale: float = 400.0

    def _bring_up(self, order: StackOrder, *, environ: dict[str, str], folder: Path, progress: Progress) -> Session:
        folder.mkdir(parents=True, exist_ok=True)
        spec, pace = order.spec, order.pace
        requested_at = datetime.now(UTC)
        values_path = REPO_ROOT / spec.stack.chart.values
        values = chart_values.load_values(values_path, order.variant.values)
        arguments = chart_values.vllm_arguments(values, source=spec.stack.chart.values)
        gpu = load_prices().sku(spec.gpu.sku).gpu
        model = arguments[0]

        prometheus_url = prometheus_server.start(
            interval_s=scrape_interval_s(pace.time_scale), folder=folder, environ=environ
        )
        phases = self._prepare_node(gpu, model, progress)
        announce, log = folder / "server.json", folder / "server.jsonl"
        process = processes.spawn(
            [
                *[sys.executable, "-m", "lab_pipelines.engine.serve", "--gpu", gpu],
                *["--time-scale", f"{pace.time_scale:g}"],
                *["--cold-start-time-scale", f"{self.cold_start_time_scale:g}"],
                *["--announce", str(announce), "--log", str(log)],
                "--",
                *arguments,
            ],
            environ=environ,
            log=folder / "server.out",
            cwd=REPO_ROOT,
        )
        server = _wait_for_announcement(process, announce, folder / "server.out")
        phases += _server_phases(log)
        ready_at = datetime.now(UTC)
        phases.append(first_token(server["base_url"], model, time_scale=pace.time_scale))
        prometheus_server.announce(
            prometheus_url,
            [ScrapeTarget("vllm", server["metrics_url"]), ScrapeTarget("dcgm-exporter", server["dcgm_url"])],
            namespace=spec.namespace,
            folder=folder,
        )
        cold_start_s = sum(phase.duration_s for phase in phases)
        progress(f"{model} on {gpu} is ready after a cold start of {cold_start_s:.0f} s (modelled)")
        return Session(
            session_id=environ[processes.LEASE_ID_VARIABLE],
            lab=spec.id,
            variant=order.variant.id,
            run_id=order.run_id,
            target="local",
            engine="modelled-vllm",
            provenance="modelled",
            pace=order.pace_name,
            time_scale=pace.time_scale,
            cold_start_time_scale=self.cold_start_time_scale,
            namespace=spec.namespace,
            model=model,
            sku=spec.gpu.sku,
            nodes=spec.gpu.nodes,
            base_url=server["base_url"],
            prometheus_url=prometheus_url,
            metric_selector=f'namespace="{spec.namespace}"',
            engine_args=arguments,
            spec_digest=canonical_digest(spec.model_dump(mode="json")),
            values_digest=canonical_digest(values),
            requested_at=requested_at,
            ready_at=ready_at,
            phases=phases,
        )

    def _prepare_node(self, gpu: str, model: str, progress: Progress) -> list[Phase]:
        """Wait, compressed, for what happens before the server's own process exists in a cluster."""
        phases = []
        for planned in cold_start_plan(gpu, model):
            if planned.name in ("model_loaded", "engine_ready"):
                continue  # the server's own
            progress(f"cold start: {planned.name} takes {planned.duration_s:.0f} s (modelled)")
            started = datetime.now(UTC)
            time.sleep(planned.duration_s / self.cold_start_time_scale)
            phases.append(
                Phase(name=planned.name, started_at=started, ended_at=datetime.now(UTC), duration_s=planned.duration_s)
            )
        return phases


def _wait_for_announcement(process: subprocess.Popen[bytes], announce: Path, output: Path) -> Mapping[str, Any]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if announce.exists():
            return json.loads(announce.read_text(encoding="utf-8"))
        if process.poll() is not None:
            break
        time.sleep(0.02)  # a file that another process writes tells of no event
    state = f"ended with exit code {process.returncode}" if process.poll() is not None else "did not answer in time"
    tail = "\n".join(output.read_text(errors="replace").splitlines()[-5:])
    raise ClusterError(f"the modelled vLLM server {state}; its output ({output}) ends:\n{tail}")


def _server_phases(log: Path) -> list[Phase]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        Phase(
            name=line["phase"],
            started_at=datetime.fromtimestamp(line["started_at"], UTC),
            ended_at=datetime.fromtimestamp(line["ended_at"], UTC),
            duration_s=line["duration_s"],
        )
        for line in lines
        if "phase" in line
    ]
