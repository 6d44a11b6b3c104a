"""How long a tick takes where much is to be looked at: 1,000 node pools, 1,000 namespaces and 10,000 pods.

Belongs here: the large cluster, on the doubles of the API server and of Azure, and each tick in a process of its own,
so that its peak memory is its own. Doesn't belong here: whether a tick does the right thing (tests/crash).

A tick is what `reap` does from the first request to the last; the process before that, which imports, is reported
beside it. The doubles answer on loopback, so that neither Azure's nor a network's own time is in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.demo import BenchmarkError
from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT
from resources import ownership
from tests.support.azure_arm import AzureArm
from tests.support.kube_api import KubeApi

NAME = "cluster ticks"
TICK_AT_MOST_S = 5.0
MEMORY_AT_MOST_MIB = 500.0

POOLS = 1000
NAMESPACES = 1000
PODS = 10_000
GOOD, OVER = 60, 18
"""Of the 78 labs: with a live lease, and with one that is over, each with a pool and an object of the whole cluster."""

_REAP = """
import json, resource, sys, time
from tests.support.azure_agent_pools import CLUSTER, RESOURCE_GROUP, SUBSCRIPTION
from tests.support.azure_pools import PoolsOverLoopback
from resources.cluster_kubernetes import KubernetesCluster

began = time.perf_counter()
folder, azure, token = sys.argv[1:]
pools = PoolsOverLoopback(
    subscription_id=SUBSCRIPTION, resource_group=RESOURCE_GROUP, cluster=CLUSTER, base_url=azure, token=token,
    retry_s=0.01,
)
cluster = KubernetesCluster(node_pools=pools, data_dir=folder, target="aks", kubeconfig=folder + "/kubeconfig")
reaped = cluster.reap()
took = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"took_s": took, "peak_mib": peak, "removed": [name for one in reaped for name in one.removed]}))
"""


def measure() -> list[Figure]:
    """The figures of each tick. Raises `BenchmarkError` for one that fails or misses something."""
    with TemporaryDirectory(prefix="labs-bench-") as folder, KubeApi() as api, AzureArm() as arm:
        api.kubeconfig(Path(folder))
        populate(api, arm)
        # The tick of gpu_scale_to_zero belongs beside this one, on the same cluster, before the reaper changes it.
        return _reaper(Path(folder), arm)


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
        if number < GOOD + OVER:
            ours = {ownership.POOL_TAG: ownership.POOL_TAG_VALUE, "lab": f"l{number + 1:02}"}
            arm.add(f"pool{number}", count=2, tags={**ours, ownership.LEASE_LABEL: _lease(number)})
        else:
            arm.add(f"pool{number}", count=number % 3, tags={"team": "search"})


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


def _reaper(folder: Path, arm: AzureArm) -> list[Figure]:
    said, whole_s = _tick(_REAP, folder, arm)
    expected = OVER * 3  # a namespace, an object of the whole cluster and a pool's nodes for each
    if len(said["removed"]) != expected:
        raise BenchmarkError(f"the reaper's tick removed {len(said['removed'])} things of {expected}")
    return [
        Figure(NAME, f"reaper, {POOLS:,} pools and {PODS:,} pods", said["took_s"], "s", at_most=TICK_AT_MOST_S),
        Figure(NAME, "reaper, peak memory of its process", said["peak_mib"], "MiB", at_most=MEMORY_AT_MOST_MIB),
        Figure(NAME, "reaper, its process from start to end", whole_s, "s", note="imports included"),
    ]


def _tick(script: str, folder: Path, arm: AzureArm) -> tuple[dict[str, Any], float]:
    """What a tick's process printed, and how long the process took."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), arm.url, arm.token],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPO_ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPO_ROOT)},
    )
    if done.returncode != 0:
        raise BenchmarkError(f"a tick ended with code {done.returncode}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout), time.perf_counter() - began
