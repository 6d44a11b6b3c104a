"""How long a tick takes where much is to be looked at: 1,000 node pools, 1,000 namespaces and 10,000 pods.

Belongs here: the large cluster, on the doubles of the API server and of Azure, and each tick in a process of its own,
so that its peak memory is its own. Doesn't belong here: whether a tick does the right thing (tests/crash).

A tick lasts from the first request to the last; its process, which imports before that, is reported beside it. The
doubles answer on loopback, so that neither Azure's nor a network's own time is in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT
from resources import ownership, processes
from resources.prometheus_blocks import PrometheusBlocks
from tests.support.azure_arm import AzureArm
from tests.support.kube_api import KubeApi
from tests.support.pool_signals import node, openmetrics, series

NAME = "cluster ticks"
TICK_AT_MOST_S = 5.0
MEMORY_AT_MOST_MIB = 500.0

POOLS = 1000
NAMESPACES = 1000
PODS = 10_000
GOOD, OVER = 60, 18
"""Of the 78 labs: with a live lease, and with one that is over, each with a pool and an object of the whole cluster."""

_TICK = """
import json, sys, time
from datetime import UTC, datetime
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.gpu_policy import load_policy
from lab_pipelines.sensors.gpu_scale_to_zero import Memory, Sensed, tick
from resources.cluster_kubernetes import KubernetesCluster
from resources.pool_signals import PoolSignals
from resources.warehouse import Warehouse
from tests.support.azure_agent_pools import CLUSTER, RESOURCE_GROUP, SUBSCRIPTION
from tests.support.azure_pools import PoolsOverLoopback

which, folder, azure, token, prometheus = sys.argv[1:]
began = time.perf_counter()
pools = PoolsOverLoopback(
    subscription_id=SUBSCRIPTION, resource_group=RESOURCE_GROUP, cluster=CLUSTER, base_url=azure, token=token,
    retry_s=0.01,
)
cluster = KubernetesCluster(node_pools=pools, data_dir=folder, target="aks", kubeconfig=folder + "/kubeconfig")
if which == "reaper":
    did = [name for one in cluster.reap() for name in one.removed]
else:
    sensed = Sensed(
        cluster=cluster, node_pools=pools, pool_signals=PoolSignals(prometheus_url=prometheus),
        warehouse=Warehouse(data_dir=folder), policy=load_policy(), mode="dry-run", target="aks", region="eastus",
        sheet=load_prices(),
    )
    _, decisions = tick(sensed, Memory(), now=datetime.now(UTC), progress=lambda line: None)
    did = [one.rule for one in decisions]
took = time.perf_counter() - began
# Not ru_maxrss, which a process inherits from the one that has started it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
print(json.dumps({"took_s": took, "peak_mib": peak, "did": did}))
"""


def measure() -> list[Figure]:
    """The figures of each tick. Raises `BenchmarkError` for one that fails or misses something."""
    with TemporaryDirectory(prefix="labs-bench-") as folder, KubeApi() as api, AzureArm() as arm:
        api.kubeconfig(Path(folder))
        populate(api, arm)
        with _prometheus(Path(folder)) as prometheus:
            sensed, sensor_s = _tick("sensor", Path(folder), arm, prometheus)
        # Afterwards, since it changes the cluster.
        reaped, reaper_s = _tick("reaper", Path(folder), arm)
    if (
        len(sensed["did"]) != POOLS
        or "signal_missing" in sensed["did"]
        or sensed["did"].count("leased") != POOLS - OVER
    ):
        raise BenchmarkError(
            f"the sensor's tick decided on {len(sensed['did'])} pools of {POOLS}: {set(sensed['did'])}"
        )
    expected = OVER * 3  # a namespace, an object of the whole cluster and a pool's nodes for each
    if len(reaped["did"]) != expected:
        raise BenchmarkError(f"the reaper's tick removed {len(reaped['did'])} things of {expected}")
    return [*_figures("gpu_scale_to_zero", sensed, sensor_s), *_figures("reaper", reaped, reaper_s)]


def populate(api: KubeApi, arm: AzureArm) -> None:
    """Fill both with others' things, and ours among them."""
    now = int(time.time())
    with api.store.changed:
        for number in range(NAMESPACES):
            api.seed(_namespace(number, now))
        for number in range(PODS):
            api.seed(_pod(number))
        for number in range(GOOD + OVER):
            api.seed(_cluster_role(number))
    for number in range(POOLS):
        # Each lab has one; the rest are others' of the labs whose lease is good.
        lab = number if number < GOOD + OVER else number % GOOD
        tags = {ownership.LEASE_LABEL: _lease(lab), ownership.LAB_LABEL: f"l{lab + 1:02}"}
        arm.add(f"pool{number}", count=1, tags={ownership.POOL_TAG: ownership.POOL_TAG_VALUE, **tags})


def _namespace(number: int, now: int) -> dict[str, Any]:
    labels, annotations, name = {"team": "search"}, {}, f"team-{number}"
    if number < GOOD + OVER:
        expires = now + 600 if number < GOOD else now - 60
        name = f"lab-{number + 1:02}"
        labels = {
            ownership.MANAGED_BY_LABEL: ownership.MANAGED_BY,
            ownership.LEASE_LABEL: _lease(number),
            ownership.EXPIRES_LABEL: str(expires),
            ownership.LAB_LABEL: f"l{number + 1:02}",
            ownership.RUN_LABEL: f"run-{number}",
        }
        annotations = {"lab-pipelines/owner": "another-machine/1:1.00"}
    metadata = {"name": name, "labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": {"phase": "Active"}}


def _pod(number: int) -> dict[str, Any]:
    place = number % NAMESPACES
    namespace = f"lab-{place + 1:02}" if place < GOOD + OVER else f"team-{place}"
    scheduled = {"type": "PodScheduled", "status": "True"}
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.32.0",
        "env": [{"name": f"SETTING_{one}", "value": "x" * 80} for one in range(20)],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}", "namespace": namespace, "labels": {"app": "vllm"}},
        "spec": {"nodeName": f"node-{number % 500}", "containers": [container]},
        "status": {"phase": "Running", "conditions": [scheduled, {"type": "Ready", "status": "True"}]},
    }


def _cluster_role(number: int) -> dict[str, Any]:
    metadata = {"name": f"exporter-{number}", "labels": {ownership.LEASE_LABEL: _lease(number)}}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata}


def _lease(number: int) -> str:
    return f"{number:032x}"


@contextmanager
def _prometheus(folder: Path) -> Iterator[str]:
    """The URL of a real Prometheus with the series of every pool's node and of the pods on it, some of which work."""
    at_s = time.time()

    def lines() -> Iterator[tuple[str, str]]:
        for number in range(POOLS):
            name = node(f"pool{number}")
            yield from series("kube_node_info", {"node": name}, 1, at_s=at_s)
            yield from series("DCGM_FI_DEV_GPU_UTIL", {"Hostname": name, "gpu": "0"}, 50, at_s=at_s)
            for one in range(PODS // POOLS):
                pod = {"namespace": f"team-{number}", "pod": f"vllm-{one}"}
                held = {**pod, "node": name, "container": "vllm", "resource": "nvidia_com_gpu"}
                yield from series("kube_pod_container_resource_requests", held, 1, at_s=at_s)
                yield from series("kube_pod_status_phase", {**pod, "phase": "Running"}, 1, at_s=at_s)
                for gauge in ("running", "waiting"):
                    yield from series(f"vllm:num_requests_{gauge}", pod, number % 2, at_s=at_s)

    blocks = PrometheusBlocks(folder / "prometheus", processes.marker(folder, "ticks"))
    text = folder / "series.txt"
    text.write_text(openmetrics(lines()), encoding="utf-8")
    try:
        blocks.add(text)
        yield blocks.serve()
    finally:
        processes.end(processes.find_marked(folder).get("ticks", []))


def _figures(name: str, said: dict[str, Any], whole_s: float) -> list[Figure]:
    return [
        Figure(NAME, f"{name}, {POOLS:,} pools, {PODS:,} pods", said["took_s"], "s", at_most=TICK_AT_MOST_S),
        Figure(NAME, f"{name}, peak memory", said["peak_mib"], "MiB", at_most=MEMORY_AT_MOST_MIB),
        Figure(NAME, f"{name}, its process from start to end", whole_s, "s", note="imports included"),
    ]


def _tick(which: str, folder: Path, arm: AzureArm, prometheus: str = "") -> tuple[dict[str, Any], float]:
    """What a tick's process printed, and how long the process took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _TICK, which, str(folder), arm.url, arm.token, prometheus],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPO_ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPO_ROOT)},
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the {which}'s tick ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout), time.perf_counter() - began
