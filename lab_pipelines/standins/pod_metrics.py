"""Stand-in for kube-state-metrics: python -m lab_pipelines.standins.pod_metrics --state F --namespace N --announce F

Serves what rules and observations ask of a pod, from the state file of a local stack (pods.py): each component is the
only container of a pod of its name. Names, types and labels as in kube-state-metrics 2.20 (internal/store/pod.go and
its test). Like the original, it says itself which namespace a series belongs to.

Without a readable state file a scrape fails, and Prometheus sees the stand-in as down, rather than every pod as gone.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lab_pipelines import loopback
from lab_pipelines.loopback import METRICS, Exchange, Receive, Scope, Send
from lab_pipelines.standins.pods import read_pods

_LABELS = ["namespace", "pod", "uid", "container"]


class PodMetrics(Collector):
    """The series of the pods as the state file has them at each scrape."""

    def __init__(self, state: Path, namespace: str) -> None:
        self._state = state
        self._namespace = namespace

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        pods = read_pods(self._state)
        restarts = CounterMetricFamily("kube_pod_container_status_restarts", "Restarts of a container.", labels=_LABELS)
        running = GaugeMetricFamily("kube_pod_container_status_running", "Whether a container runs.", labels=_LABELS)
        for component, pod in pods.items():
            restarts.add_metric(self._labels(component), pod.restarts)
            running.add_metric(self._labels(component), float(pod.running))
        yield restarts
        yield running

    def describe(self) -> list[CounterMetricFamily]:
        """Nothing in advance: the registry would collect otherwise, before there is a state."""
        return []

    def _labels(self, component: str) -> list[str]:
        pod = f"{component}-0"
        return [self._namespace, pod, str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{pod}.{self._namespace}")), component]


class PodMetricsApi:
    """kube-state-metrics' one endpoint."""

    def __init__(self, state: Path, namespace: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PodMetrics(state, namespace))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(send)
        if scope["path"] != "/metrics":
            await exchange.reply(404, b"not found; this stand-in has /metrics\n")
            return
        try:
            page = generate_latest(self._registry)
        except (OSError, ValueError, TypeError) as error:
            await exchange.reply(500, f"the state file can't be read: {error}\n".encode())
            return
        await exchange.reply(200, page, METRICS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stand-in until it is told to end. The exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m lab_pipelines.standins.pod_metrics",
        description="A few series of kube-state-metrics for the pods of a local stack, on loopback.",
    )
    parser.add_argument("--state", type=Path, required=True, help="JSON file with the components' state")
    parser.add_argument("--namespace", required=True, help="namespace of the pods")
    parser.add_argument(
        "--announce", type=loopback.in_a_folder, required=True, help="JSON file to write when it answers"
    )
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    options = parser.parse_args(argv)
    try:
        listener = loopback.listen(options.port, "--port")
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    loopback.announce(options.announce, {"metrics_url": f"{loopback.url_of(listener)}/metrics"})
    loopback.run(PodMetricsApi(options.state, options.namespace), listener)
    return 0


if __name__ == "__main__":
    sys.exit(main())
