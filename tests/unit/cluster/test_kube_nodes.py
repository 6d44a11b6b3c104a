"""Where a lab's pods are and what they ask of each node, by the rules of the scheduler; usage by a real Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from resources import kube_nodes, processes
from resources.cluster import Amounts
from resources.prometheus_blocks import PrometheusBlocks
from tests.support.pool_signals import openmetrics, series

T4 = "Standard_NC4as_T4_v3"
GIB = 2**30
AT = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def container(
    cpu: str | None = None, memory: str | None = None, gpus: str | None = None, **more: Any
) -> dict[str, Any]:
    asked = {"cpu": cpu, "memory": memory, "nvidia.com/gpu": gpus}
    return {"resources": {"requests": {key: value for key, value in asked.items() if value is not None}}, **more}


def pod(node: str | None, *containers: Mapping[str, Any], phase: str = "Running", **spec: Any) -> dict[str, Any]:
    return {"spec": {"nodeName": node, "containers": list(containers), **spec}, "status": {"phase": phase}}


def node(machine: str | None = T4, **labels: str) -> dict[str, Any]:
    said = {} if machine is None else {kube_nodes.INSTANCE_TYPE: machine}
    allocatable = {"cpu": "3860m", "memory": "24Gi", "nvidia.com/gpu": "1", "pods": "110"}
    return {"metadata": {"labels": {**said, **labels}}, "status": {"allocatable": allocatable}}


def request(*containers: Mapping[str, Any], **spec: Any) -> tuple[Decimal, Decimal, Decimal]:
    found = kube_nodes.effective_request(pod("n", *containers, **spec))
    return found["gpus"], found["cpus"], found["memory_bytes"]


def test_a_pod_asks_for_the_sum_of_its_containers() -> None:
    assert request(container("500m", "1Gi", "1"), container("1", "512Mi")) == (1, Decimal("1.5"), 1.5 * GIB)
    assert request({}) == (0, 0, 0)


def test_a_limit_alone_is_a_request() -> None:
    assert request({"resources": {"limits": {"cpu": "2"}}}) == (0, 2, 0)


def test_an_init_container_counts_where_it_needs_more_than_the_rest_together() -> None:
    assert request(container("1"), initContainers=[container("3"), container("2")]) == (0, 3, 0)
    assert request(container("1"), container("3"), initContainers=[container("3")]) == (0, 4, 0)


def test_a_sidecar_runs_beside_the_containers_and_beside_the_init_containers_after_it() -> None:
    sidecar = container("1", restartPolicy="Always")
    assert request(container("2"), initContainers=[sidecar]) == (0, 3, 0)
    assert request(container("2"), initContainers=[sidecar, container("4")]) == (0, 5, 0)
    assert request(container("2"), initContainers=[container("4"), sidecar]) == (0, 4, 0)


def test_the_overhead_of_a_runtime_class_is_on_top() -> None:
    assert request(container("2"), overhead={"cpu": "250m"}) == (0, Decimal("2.25"), 0)


def test_nodes_of_the_labs_machine_are_its_own_and_others_are_the_clusters() -> None:
    pods = [
        pod("t4-0", container("1", "1Gi", "1")),
        pod("t4-0", container("1")),
        pod("t4-0", container("1"), phase="Succeeded"),
        pod("system-0", container("1")),
        pod("plain", container("1")),
        pod(None, container("1"), phase="Pending"),
    ]
    spot = {"kubernetes.azure.com/agentpool": "t4spot", "kubernetes.azure.com/scalesetpriority": "spot"}
    nodes = {"t4-0": node(**spot), "system-0": node("Standard_D4s_v5"), "plain": node(None)}
    plain, shared = kube_nodes.seen(pods, nodes, sku=T4)
    assert (plain.node, plain.pool, plain.priority) == ("plain", None, "on_demand")
    assert (shared.node, shared.pool, shared.priority) == ("t4-0", "t4spot", "spot")
    assert shared.requested == Amounts(gpus=1, cpus=2, memory_bytes=GIB)
    assert shared.capacity == Amounts(gpus=1, cpus=3.86, memory_bytes=24 * GIB)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Ten minutes of a container with half a core and 2 GiB, and five of one with 1 GiB, both on t4-0."""

    def lines() -> Iterator[tuple[str, str]]:
        labels = {"namespace": "lab-06", "pod": "vllm-0", "container": "vllm", "node": "t4-0"}
        end_s = AT.timestamp()
        for number in range(41):
            at_s = end_s - 600 + 15 * number
            told = ",".join(f'{key}="{value}"' for key, value in labels.items())
            yield (
                "container_cpu_usage_seconds_total",
                (f"container_cpu_usage_seconds_total{{{told}}} {7.5 * number:g} {at_s:.3f}"),
            )
        memory = "container_memory_working_set_bytes"
        yield from series(memory, labels, 2 * GIB, at_s=end_s, for_s=600)
        yield from series(memory, {**labels, "container": "late"}, GIB, at_s=end_s, for_s=300)
        yield from series(memory, {**labels, "container": ""}, 50 * GIB, at_s=end_s, for_s=600)
        yield from series(memory, {**labels, "namespace": "lab-07"}, 50 * GIB, at_s=end_s, for_s=600)

    blocks = PrometheusBlocks(tmp_path / "prometheus", processes.marker(tmp_path, "lease"))
    text = tmp_path / "series.txt"
    text.write_text(openmetrics(lines()), encoding="utf-8")
    blocks.add(text)
    yield blocks.serve()
    for marked in processes.find_marked(tmp_path).values():
        processes.end(marked)


def test_usage_is_the_mean_over_the_whole_time_of_all_containers(prometheus: str) -> None:
    used = kube_nodes.used(prometheus, "lab-06", since=AT - timedelta(seconds=600), until=AT)
    assert list(used) == ["t4-0"]
    assert used["t4-0"].cpus == pytest.approx(0.5, rel=0.01)
    assert used["t4-0"].memory_bytes == pytest.approx(2.5 * GIB, rel=0.01)
    assert used["t4-0"].gpus is None


def test_usage_that_nobody_measured_is_missing(prometheus: str) -> None:
    assert kube_nodes.used(prometheus, "lab-08", since=AT - timedelta(seconds=600), until=AT) == {}
    assert kube_nodes.used("http://127.0.0.1:9", "lab-06", since=AT - timedelta(seconds=600), until=AT) == {}
