"""A cluster that labs run on, on this machine: the double of the API server, and behind it real servers on loopback.

Belongs here: what stands around the API server in a real cluster: nodes, a Prometheus that finds pods by itself behind
its service, kube-state-metrics, and the modelled server in the pods of our image.
Doesn't belong here: the API server itself (kube_api.py), or the runs (main_command.py).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_pipelines.deployment import REPO_ROOT
from resources import processes, prometheus_server
from resources.prometheus_server import TARGETS_FILE, ScrapeTarget, target_groups
from tests.support import kube_state_metrics, probe_pods
from tests.support.kube.kubelet import Delays, PodCrashedError, PodProcess
from tests.support.kube_api import KubeApi, Seen

Json = dict[str, Any]

IMAGE = "labs.example/lab-pipelines:test"
PROMETHEUS_IMAGE = "labs.example/prometheus:test"
T4_NODE = "t4-0"
T4 = "Standard_NC4as_T4_v3"
GPU_TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
ANSWERS_WITHIN_S = 60.0
SCRAPE_EVERY_S = 0.2


@dataclass
class LabCluster:
    """The running whole. Its `environ` makes the main command use it."""

    api: KubeApi
    folder: Path
    prometheus_url: str
    before: list[Seen] = field(default_factory=list)
    """What was asked of the API server to set the cluster up."""
    _targets: dict[str, list[tuple[str, ScrapeTarget]]] = field(default_factory=dict)
    """By the pod's uid: (namespace, target)."""
    _state_metrics: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def environ(self, **more: str) -> dict[str, str]:
        return {
            "LABS_TARGET": "kubernetes",
            "LABS_KUBECONFIG": str(self.folder / "kubeconfig"),
            "LABS_CLUSTER_ENGINE": "modelled",
            "LABS_IMAGE": IMAGE,
            "NO_PROXY": "127.0.0.1",
            **more,
        }

    def start_engine(self, pod: Json) -> PodProcess:
        """Play a pod of our chart: the container's own command, on loopback ports that the kernel chooses."""
        container, uid = pod["spec"]["containers"][0], pod["metadata"]["uid"]
        place = self.folder / "pods" / uid
        place.mkdir(parents=True)
        announce, log = place / "announce.json", place / "log.jsonl"
        command = [*(container.get("command") or []), *(container.get("args") or [])]
        options = {"--host": "127.0.0.1", "--port": "0", "--dcgm-port": "0", "--log": str(log)}
        for name, value in options.items():
            command[command.index(name) + 1] = value
        at = command.index("--log")
        command[at:at] = ["--announce", str(announce)]
        assert command[:3] == ["python", "-m", "lab_pipelines.engine.serve"], command
        with (place / "out").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command[1:]], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=REPO_ROOT
            )
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while not announce.exists():
            if process.poll() is not None:
                raise PodCrashedError(process.returncode, _log(log))
            assert time.monotonic() < deadline, f"{command} did not answer"
            time.sleep(0.02)  # a file that another process writes tells of no event
        said = json.loads(announce.read_text())
        namespace = pod["metadata"]["namespace"]
        name = pod["metadata"]["labels"]["app.kubernetes.io/instance"]
        self._scrape(
            uid,
            [
                (namespace, ScrapeTarget(name, said["metrics_url"])),
                (namespace, ScrapeTarget("dcgm-exporter", said["dcgm_url"])),
            ],
        )

        def stop() -> None:
            self._scrape(uid, [])
            process.terminate()
            process.wait()

        return PodProcess(
            ports={8000: _address(said["base_url"]), 9400: _address(said["dcgm_url"])},
            log=lambda: _log(log),
            stop=stop,
        )

    def start_probe(self, pod: Json) -> PodProcess:
        """Play a pod that runs a Python script."""
        return probe_pods.start(pod, self.api.read, self.folder / "pods" / pod["metadata"]["uid"])

    def start_prometheus(self, pod: Json) -> PodProcess:
        """Play the pod behind the cluster's Prometheus service."""
        return PodProcess(ports={9090: _address(self.prometheus_url)})

    def _scrape(self, uid: str, targets: Sequence[tuple[str, ScrapeTarget]]) -> None:
        """As the operator's service discovery: what is scraped follows the pods."""
        with self._lock:
            if targets:
                self._targets[uid] = list(targets)
            else:
                self._targets.pop(uid, None)
            self.write_targets()

    def write_targets(self) -> None:
        listed = [one for found in self._targets.values() for one in found]
        groups = [group for namespace, target in listed for group in target_groups([target], namespace=namespace)]
        state = ScrapeTarget("kube-state-metrics", self._state_metrics, namespaced=False)
        path = self.folder / "prometheus" / TARGETS_FILE
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps([*groups, *target_groups([state], namespace="monitoring")]), encoding="utf-8")
        draft.replace(path)


@contextmanager
def lab_cluster(folder: Path, *, delays: Delays | None = None, gpus: int = 1) -> Iterator[LabCluster]:
    """A cluster with one tainted node with a T4 and one without a GPU. Everything it started has ended afterwards."""
    environ = processes.marker(folder, "lab-cluster")
    with KubeApi(delays=delays or Delays()) as api, _state_metrics(api) as state_metrics:
        api.make_node(
            T4_NODE, gpus=gpus, memory="28Gi", labels={"node.kubernetes.io/instance-type": T4}, taints=[GPU_TAINT]
        )
        api.make_node("system-0", gpus=0, labels={"node.kubernetes.io/instance-type": "Standard_D4s_v5"}, taints=[])
        api.install_crds()
        api.kubeconfig(folder)
        try:
            url = prometheus_server.start(interval_s=SCRAPE_EVERY_S, folder=folder / "prometheus", environ=environ)
            cluster = LabCluster(api, folder, url, _state_metrics=state_metrics)
            cluster.write_targets()
            api.plays(cluster.start_engine, image=IMAGE, labels={"app.kubernetes.io/name": "modelled-vllm"})
            api.plays(cluster.start_probe, image="docker.io/library/python")
            api.plays(cluster.start_prometheus, image=PROMETHEUS_IMAGE)
            _put_prometheus(api)
            cluster.before = list(api.seen)
            yield cluster
        finally:
            processes.end(processes.find_marked(folder).get("lab-cluster", []))


def _put_prometheus(api: KubeApi) -> None:
    """The service `monitoring/prometheus-operated` and its pod."""
    labels = {"app": "prometheus"}
    api.make_namespace("monitoring")
    for kind, name, spec in (
        ("Service", "prometheus-operated", {"selector": labels, "ports": [{"port": 9090, "targetPort": 9090}]}),
        ("Pod", "prometheus-0", {"containers": [{"name": "prometheus", "image": PROMETHEUS_IMAGE}]}),
    ):
        _post(api, {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec})


def _post(api: KubeApi, body: Json) -> None:
    import urllib.request

    plural = f"{body['kind'].lower()}s"
    request = urllib.request.Request(
        f"{api.url}/api/v1/namespaces/monitoring/{plural}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": "Bearer of-the-test"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


@contextmanager
def _state_metrics(api: KubeApi) -> Iterator[str]:
    """The URL of a server that answers with what kube-state-metrics would."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            data = kube_state_metrics.page(_all(api, "pods"), _all(api, "resourcequotas")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # Prometheus was ended while it asked
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _all(api: KubeApi, resource: str) -> list[Json]:
    found = [api.read(*key) for key in api.stored() if key[0] == resource]
    return [one for one in found if one is not None]


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def _log(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
