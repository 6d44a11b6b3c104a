"""The local target: a lab's stack as processes on this machine, on loopback ports that the kernel chooses.

Belongs here: what every stack of local processes shares (lease, reaping, release), and the modelled vLLM stack.
Doesn't belong here: the engine's timing (lab_pipelines/engine/), an engine that is not ours (cluster_external.py).
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec, Pace, Variant
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.digest import canonical_digest
from lab_pipelines.engine.cold_start import cold_start_plan
from resources import chart_values, processes, prometheus_server
from resources.cluster import Cluster, ClusterError, Phase, Progress, Reaped, Session
from resources.leases import TTL, LeaseBook, LeaseFile, why_dead
from resources.prometheus_server import ScrapeTarget

READY_TIMEOUT_S = 60.0
FIRST_TOKEN_TIMEOUT_S = 60.0


class LoopbackCluster(Cluster):
    """Leases, reaping and release for any stack whose processes run on this machine."""

    data_dir: str

    @abstractmethod
    def _bring_up(
        self,
        spec: LabSpec,
        variant: Variant,
        *,
        run_id: str,
        pace_name: str,
        pace: Pace,
        environ: dict[str, str],
        folder: Path,
        progress: Progress,
    ) -> Session:
        """Start the stack's processes with `environ` and return when they answer. May raise with some of them up."""

    def deploy(
        self,
        spec: LabSpec,
        variant: Variant,
        *,
        run_id: str,
        pace_name: str,
        pace: Pace,
        hold: timedelta | None,
        progress: Progress,
    ) -> Session:
        book = self._book()
        with book.locked():
            for reaped in self._reap(book):
                progress(f"reaped the stack of {reaped.lab}, because {reaped.reason}: {len(reaped.removed)} processes")
            entry = book.take(spec.id, run_id, hold=hold)
        lease_id = entry.lease.lease_id
        try:
            session = self._bring_up(
                spec,
                variant,
                run_id=run_id,
                pace_name=pace_name,
                pace=pace,
                environ=processes.marker(self._state_dir, lease_id),
                folder=self.run_folder(run_id, spec.id),
                progress=progress,
            )
        except BaseException:
            self._release(spec.id, lease_id)
            raise
        book.write(entry.model_copy(update={"session": session}))
        if hold is None:
            # A run that ends before metrics_snapshot (a failed check skips the rest) must not leave its stack behind.
            atexit.register(self._release, spec.id, lease_id)
        return session

    def attach(self, lab: str) -> Session:
        entry = self._book().read(lab)
        if entry is None or entry.session is None or why_dead(entry, now=datetime.now(UTC), owner_alive=_alive(entry)):
            raise ClusterError(
                f"no stack of {lab} is up. Materialize deployed_stack in the same run, or first on its own "
                "with hold_minutes set"
            )
        return entry.session

    def marker(self, lab: str) -> dict[str, str]:
        entry = self._book().read(lab)
        return processes.marker(self._state_dir, entry.lease.lease_id) if entry else {}

    def renew(self, session: Session) -> None:
        book = self._book()
        with book.locked():
            entry = book.read(session.lab)
            if entry is None or entry.session != session:
                raise ClusterError(f"the lease of {session.lab} is gone: its stack was released or reaped meanwhile")
            expires_at = max(entry.lease.expires_at, datetime.now(UTC) + TTL)
            book.write(entry.model_copy(update={"lease": entry.lease.model_copy(update={"expires_at": expires_at})}))

    def release(self, lab: str) -> datetime | None:
        return self._release(lab, None)

    def reap(self) -> list[Reaped]:
        book = self._book()
        with book.locked():
            return self._reap(book)

    def run_folder(self, run_id: str, lab: str) -> Path:
        """Where a run keeps the logs and raw files of its stack and load."""
        return Path(self.data_dir) / "runs" / run_id / lab

    @property
    def _state_dir(self) -> Path:
        return Path(self.data_dir) / "state"

    def _book(self) -> LeaseBook:
        return LeaseBook(self._state_dir)

    def _release(self, lab: str, lease_id: str | None) -> datetime | None:
        """End the processes first and forget the lease last, so that dying in between leaves it for the reaper."""
        book = self._book()
        with book.locked():
            entry = book.read(lab)
            if entry is None or (lease_id is not None and entry.lease.lease_id != lease_id):
                return None
            processes.end(processes.find_marked(self._state_dir).get(entry.lease.lease_id, []))
            book.remove(lab)
            return datetime.now(UTC)

    def _reap(self, book: LeaseBook) -> list[Reaped]:
        marked = processes.find_marked(self._state_dir)
        reaped, good = [], set()
        for entry in book.all():
            reason = why_dead(entry, now=datetime.now(UTC), owner_alive=_alive(entry))
            if reason is None:
                good.add(entry.lease.lease_id)
                continue
            removed = processes.end(marked.pop(entry.lease.lease_id, []))
            book.remove(entry.lease.lab)
            reaped.append(_reaped(entry, reason, removed))
        for lease_id, orphans in marked.items():
            if lease_id not in good:
                removed = processes.end(orphans)
                reaped.append(
                    Reaped(
                        lease_id=lease_id, lab="unknown", run_id="unknown", reason="it has no lease", removed=removed
                    )
                )
        return reaped


class LocalCluster(LoopbackCluster):
    """The modelled vLLM server and a real Prometheus that scrapes it.

    Node, driver and image phases of the cold start are waited for at `cold_start_time_scale` stack seconds per wall
    second; the server plays its own phases, at the same scale, before it binds its port.
    """

    cold_start_time_scale: float = 400.0

    def _bring_up(
        self,
        spec: LabSpec,
        variant: Variant,
        *,
        run_id: str,
        pace_name: str,
        pace: Pace,
        environ: dict[str, str],
        folder: Path,
        progress: Progress,
    ) -> Session:
        folder.mkdir(parents=True, exist_ok=True)
        requested_at = datetime.now(UTC)
        values_path = REPO_ROOT / spec.stack.chart.values
        values = chart_values.load_values(values_path, variant.values)
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
            variant=variant.id,
            run_id=run_id,
            target="local",
            engine="modelled-vllm",
            provenance="modelled",
            pace=pace_name,
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


def scrape_interval_s(time_scale: float) -> float:
    """Wall seconds between scrapes: about two stack seconds, within what a small machine bears and a person waits."""
    return min(max(2.0 / time_scale, 0.1), 1.0)


def first_token(base_url: str, model: str, *, time_scale: float) -> Phase:
    """Ask the engine for one token, as the readiness that counts. Raises `ClusterError`."""
    body = {"model": model, "prompt": [300] * 8, "max_tokens": 1, "temperature": 0.0}
    request = urllib.request.Request(
        f"{base_url}/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    started = datetime.now(UTC)
    try:
        with urllib.request.urlopen(request, timeout=FIRST_TOKEN_TIMEOUT_S) as response:
            answer, ended = response.read().decode(errors="replace"), datetime.now(UTC)
    except urllib.error.HTTPError as error:
        detail = error.read().decode(errors="replace")[:300]
        raise ClusterError(
            f"{base_url}/completions answered {error.code} to a request for one token: {detail}"
        ) from None
    except (urllib.error.URLError, OSError) as error:
        raise ClusterError(f"{base_url}/completions did not answer a request for one token: {error}") from None
    if not _is_completion(answer):
        # llama.cpp, for one, has a /completions of its own beside the one below /v1.
        raise ClusterError(
            f"{base_url}/completions answers, but not with an OpenAI completion; the base URL of most servers ends in "
            f"/v1. The answer begins: {answer[:200]}"
        )
    return Phase(
        name="first_token",
        started_at=started,
        ended_at=ended,
        duration_s=(ended - started).total_seconds() * time_scale,
    )


def _is_completion(answer: str) -> bool:
    try:
        return isinstance(json.loads(answer)["choices"][0]["text"], str)
    except (ValueError, LookupError, TypeError):
        return False


def _wait_for_announcement(process: subprocess.Popen[bytes], announce: Path, output: Path) -> Mapping[str, Any]:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if announce.exists():
            return json.loads(announce.read_text(encoding="utf-8"))
        if process.poll() is not None:
            break
        time.sleep(0.02)
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


def _alive(entry: LeaseFile) -> bool:
    return processes.is_alive(entry.lease.owner)


def _reaped(entry: LeaseFile, reason: str, removed: list[str]) -> Reaped:
    lease = entry.lease
    return Reaped(lease_id=lease.lease_id, lab=lease.lab, run_id=lease.run_id, reason=reason, removed=removed)
