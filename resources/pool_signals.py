"""What every node pool is being used for: two independent signals, one query each for the whole cluster.

Belongs here: the queries, and their answers by pool. Doesn't belong here: what follows from them
(lab_pipelines/gpu_policy.py).

`requests` comes from the engines and from what the scheduler placed: vLLM's own gauges, over the pods that
kube-state-metrics says hold a GPU of the pool. A pool on which no pod holds a GPU has no request, and that is an
observation: its nodes must be there, and fresh. `utilisation` comes from the GPUs themselves, by NVIDIA's DCGM
exporter. Neither can make up for the other.

The series: vLLM's as it serves them, each with the pod's `namespace` and `pod`, as the Prometheus operator labels
them; kube-state-metrics' with honoured labels; DCGM's with its `Hostname`, which its chart sets to the node's name.
"""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from string import Template
from typing import Any, TypeVar

from dagster import ConfigurableResource

from lab_pipelines.gpu_policy import Signal
from lab_pipelines.provenance import Provenance
from resources.telemetry import TelemetryError, ask_now

_T = TypeVar("_T")

AKS_NODE = "aks-(.+)-[0-9]+-vmss.+"
"""A node's name on AKS; the first group is its pool's."""

# A part of each answer is told by its label `part`, so that value, age and coverage are of one and the same moment.
_PARTS = """
    label_replace($value, "part", "value", "", "")
    or label_replace($age, "part", "age", "", "")
    or label_replace($reporting, "part", "reporting", "", "")
    or label_replace($expected, "part", "expected", "", "")
"""
_PIECES = {
    # A pod that has ended keeps its requests on record until it is deleted.
    "gpu_pods": "group by (namespace, pod, node) (kube_pod_container_resource_requests{"
    'resource="nvidia_com_gpu", node!=""} unless on (namespace, pod) kube_pod_status_phase{phase=~"Succeeded|Failed"}'
    " == 1)",
    # Both gauges of an engine, or it doesn't count as heard from.
    "load": "sum by (namespace, pod) (max_over_time(vllm:num_requests_running[${window_s}s]) "
    "+ max_over_time(vllm:num_requests_waiting[${window_s}s]) "
    "and vllm:num_requests_running and vllm:num_requests_waiting)",
    # timestamp() tells a sample's own time of a bare selector only.
    "engine_age": "max by (namespace, pod) (time() - timestamp(vllm:num_requests_running))",
    "join": "* on (namespace, pod) group_left ()",
}
_BY_NODE = {
    "requests": "sum by (node) ($gpu_pods $join $load)",
    "engine_age": "max by (node) ($gpu_pods $join $engine_age)",
    "heard": "count by (node) ($gpu_pods $join $load)",
    "holding": "count by (node) ($gpu_pods)",
    "node_age": "time() - timestamp(kube_node_info)",
    "none": "0 * group by (node) (kube_node_info)",
}
"""Sums by node come before the node's name is taken apart: of ten thousand pods, that alone took a second."""
_REQUESTS = {
    "value": "sum by (pool) (${on}$requests or $none${node_of})",
    "age": "max by (pool) (${on}$engine_age${node_of} or ${on}$node_age${node_of})",
    "reporting": "sum by (pool) (${on}$heard or $none${node_of})",
    "expected": "sum by (pool) (${on}$holding or $none${node_of})",
}
_UTILISATION = {
    "value": "max by (pool) (${on}max_over_time(DCGM_FI_DEV_GPU_UTIL[${window_s}s])${gpu_of})",
    "age": "max by (pool) (${on}time() - timestamp(DCGM_FI_DEV_GPU_UTIL)${gpu_of})",
    "reporting": "sum by (pool) (${on}group by (Hostname) (DCGM_FI_DEV_GPU_UTIL)${gpu_of})",
    "expected": "sum by (pool) (${on}group by (node) (kube_node_info)${node_of})",
}


class PoolSignals(ConfigurableResource):
    """Asks the cluster's Prometheus."""

    prometheus_url: str | None = None
    provenance: Provenance = "measured"
    """`modelled` where the engines are our modelled server."""
    timeout_s: float = 4.0
    """For both queries together."""
    window_s: int = 120
    """A signal's value is its most over so long, two ticks: what begins and ends between two looks counts as well."""
    node_pattern: str = AKS_NODE

    def read(self, nodes: Mapping[str, int], *, at: datetime) -> dict[str, tuple[Signal, Signal]]:
        """Requests and utilisation of each pool in `nodes`, which says how many nodes it should have, at `at`.

        A pool that Prometheus doesn't know has signals without a value. Raises `TelemetryError`, at the latest after
        `timeout_s`.
        """
        url = self.prometheus_url
        if url is None:
            raise TelemetryError("no Prometheus is named for this cluster; set LABS_PROMETHEUS_URL")

        def ask(promql: str) -> Callable[[], list[dict[str, Any]]]:
            return lambda: ask_now(url, promql, at=at, timeout_s=self.timeout_s)

        asked = [ask(self.query(_REQUESTS)), ask(self.query(_UTILISATION))]
        requests, utilisation = (_by_pool(answer) for answer in in_time(asked, self.timeout_s))
        return {
            pool: (
                _signal(requests.get(pool, {}), least=0),
                # A node that Azure counts and Kubernetes doesn't know yet has GPUs that nobody hears from.
                _signal(utilisation.get(pool, {}), least=count),
            )
            for pool, count in nodes.items()
        }

    def query(self, parts: Mapping[str, str]) -> str:
        """One signal's PromQL, on one line."""
        filling = {
            "window_s": str(self.window_s),
            "on": "label_replace(",
            "node_of": f', "pool", "$1", "node", "{self.node_pattern}")',
            "gpu_of": f', "pool", "$1", "Hostname", "{self.node_pattern}")',
        }
        for pieces in (_PIECES, _BY_NODE, parts, {"all": _PARTS}):
            filling |= {name: Template(piece).substitute(filling) for name, piece in pieces.items()}
        return " ".join(filling["all"].split())


def in_time(asked: Sequence[Callable[[], _T]], timeout_s: float) -> list[_T]:
    """The answers to all of `asked`, put at once. Raises `TelemetryError`, also when one isn't there in time.

    The client's own timeout is between two bytes: a server that trickles could hold up the tick for ever. Whoever is
    late goes on in a thread that nobody waits for.
    """
    answers, failed = dict[int, _T](), list[TelemetryError]()

    def put(number: int, ask: Callable[[], _T]) -> None:
        try:
            answers[number] = ask()
        except TelemetryError as error:
            failed.append(error)

    threads = [threading.Thread(target=put, args=one, daemon=True) for one in enumerate(asked)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
    if failed:
        raise failed[0]
    if len(answers) < len(asked):
        raise TelemetryError(f"Prometheus did not answer within {timeout_s:g} s")
    return [answers[number] for number in range(len(asked))]


def _by_pool(answer: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for series in answer:
        labels = series["metric"]
        if pool := labels.get("pool"):
            found[pool][labels["part"]] = float(series["value"][1])
    return found


def _signal(parts: Mapping[str, float], *, least: int) -> Signal:
    value, age_s = parts.get("value"), parts.get("age")
    known = value is not None and age_s is not None and math.isfinite(value)
    return Signal(
        value=value if known else None,
        age_s=age_s if known else None,
        reporting=int(parts.get("reporting", 0)),
        expected=max(int(parts.get("expected", 0)), least),
    )
