"""A real Prometheus with L03's rules, a real Alertmanager with L03's routes, and the receiver: an alert's whole way."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.standins.pods import Pod, write_pods
from resources import alert_rules, alerting, alertmanager_server, processes, prometheus_server
from resources.cluster import ClusterError
from resources.prometheus_server import ScrapeTarget
from tests.support.standin import standin

LAB03 = REPO_ROOT / "helm-values" / "lab03"
NAMESPACE = "lab-03"
# Two minutes of a rule's `for` pass in two seconds, Prometheus evaluates four times a second.
TIME_SCALE, SCRAPE_INTERVAL_S = 60.0, 0.2
# Of a busy machine; a wait ends with the event that it is for.
WITHIN_S = 60.0


@dataclass
class Stack:
    prometheus_url: str
    http_url: str
    pods: Path
    notifications: Path

    def await_alert(self, alert: str, *, since: datetime, within_wall_s: float = WITHIN_S) -> alerting.AlertTimeline:
        return alerting.await_alert(
            self.prometheus_url, self.notifications, alert, since=since, within_wall_s=within_wall_s
        )

    @contextmanager
    def load(self, path: str) -> Iterator[None]:
        """Two users who ask for `path` again and again until the block ends."""
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                try:
                    urllib.request.urlopen(self.http_url + path, timeout=30).close()
                except urllib.error.HTTPError as error:
                    error.close()
                over.wait(0.02)

        with ThreadPoolExecutor(2) as users:
            asking = [users.submit(ask) for _ in range(2)]
            try:
                yield
            finally:
                over.set()
            for user in asking:
                user.result()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("alerting")
    pods, notifications = folder / "pods.json", folder / "notifications.jsonl"
    write_pods(pods, {"http": Pod(restarts=0, running=True)})
    environ = processes.marker(folder, "lease")
    values = yaml.safe_load((LAB03 / "kube-prometheus-stack.yaml").read_text())
    rules = alert_rules.local_rules(
        alert_rules.load(LAB03 / alert_rules.FILE),
        time_scale=TIME_SCALE,
        scrape_interval_s=SCRAPE_INTERVAL_S,
        source="L03",
    )
    (folder / "rules.json").write_text(json.dumps(rules.content))
    with (
        standin("http_server", folder, "--log", str(folder / "http.jsonl"), "--time-scale", str(TIME_SCALE)) as http,
        standin("pod_metrics", folder, "--state", str(pods), "--namespace", NAMESPACE) as pod_metrics,
        standin("webhook", folder, "--log", str(notifications)) as webhook,
    ):
        try:
            config = alertmanager_server.local_config(
                values["alertmanager"]["config"],
                webhook_url=webhook.announced["url"],
                time_scale=TIME_SCALE,
                source="L03",
            )
            url = prometheus_server.start(
                interval_s=SCRAPE_INTERVAL_S,
                folder=folder,
                environ=environ,
                rule_files=[folder / "rules.json"],
                alertmanager_url=alertmanager_server.start(config, folder=folder, environ=environ),
                time_scale=TIME_SCALE,
            )
            targets = [
                ScrapeTarget("http", http.announced["metrics_url"]),
                ScrapeTarget("kube-state-metrics", pod_metrics.announced["metrics_url"], namespaced=False),
            ]
            prometheus_server.announce(url, targets, namespace=NAMESPACE, folder=folder)
            yield Stack(url, http.announced["base_url"], pods, notifications)
        finally:
            processes.end(processes.find_marked(folder).get("lease", []))


def test_a_restart_is_notified_to_the_platforms_receiver(stack: Stack) -> None:
    since = datetime.now(UTC)
    write_pods(stack.pods, {"http": Pod(restarts=1, running=True)})
    timeline = stack.await_alert("PodRestarted", since=since)
    assert timeline.pending_at and timeline.firing_at and timeline.notified_at
    # It has no `for`, so it fires as it becomes active; the group is waited for.
    assert since <= timeline.pending_at == timeline.firing_at < timeline.notified_at
    [line] = [line for line in lines(stack.notifications) if line["alertname"] == "PodRestarted"]
    assert line["receiver"] == "platform-tickets"
    assert line["group_labels"] == {"alertname": "PodRestarted", "namespace": NAMESPACE}
    assert line["labels"] == {
        "alertname": "PodRestarted",
        "namespace": NAMESPACE,
        "pod": "http-0",
        "container": "http",
        "uid": line["labels"]["uid"],
        "job": "kube-state-metrics",
        "instance": line["labels"]["instance"],
        "severity": "warning",
        "team": "platform",
    }
    assert line["annotations"]["runbook"].startswith("kubectl -n lab-03 logs --previous http-0 http")


def test_failing_requests_are_pending_before_they_fire_and_burn_the_budget_to_the_pager(stack: Stack) -> None:
    since = datetime.now(UTC)
    with stack.load("/status/500"):
        burnt = stack.await_alert("ErrorBudgetBurnFast", since=since)
        failed = stack.await_alert("RequestErrorRateHigh", since=since, within_wall_s=8.0)
    assert burnt.notified_at is not None
    [page] = [line for line in lines(stack.notifications) if line["alertname"] == "ErrorBudgetBurnFast"]
    assert (page["receiver"], page["labels"]["job"]) == ("page", "http")
    # The error rate's own alert waits two minutes, then fires; who was paged gets no ticket for it.
    assert failed.pending_at and failed.firing_at
    waited_s = (failed.firing_at - failed.pending_at).total_seconds() * TIME_SCALE
    assert waited_s >= 120 - 0.001 * TIME_SCALE  # the firing evaluation is known to the millisecond
    assert failed.notified_at is None


def test_slow_requests_fire_by_their_latency_in_stack_seconds(stack: Stack) -> None:
    since = datetime.now(UTC)
    with stack.load("/delay/4"):
        timeline = stack.await_alert("RequestLatencyHigh", since=since)
    assert timeline.notified_at is not None
    [line] = [line for line in lines(stack.notifications) if line["alertname"] == "RequestLatencyHigh"]
    assert line["receiver"] == "serving-tickets"


def test_an_alert_that_never_comes_has_an_empty_timeline(stack: Stack) -> None:
    empty = alerting.AlertTimeline(None, None, None)
    assert stack.await_alert("QueueDepthHigh", since=datetime.now(UTC), within_wall_s=0) == empty


def test_an_alert_that_no_rule_has_is_refused_at_once_with_the_names_that_there_are(stack: Stack) -> None:
    with pytest.raises(
        ClusterError, match=r"has no alert 'Nonsense'; its rules have: ErrorBudgetBurnFast, .*Restarted"
    ):
        stack.await_alert("Nonsense", since=datetime.now(UTC))


def test_a_prometheus_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"could not be asked at http://127\.0\.0\.1:9/api/v1/rules"):
        alerting.await_alert("http://127.0.0.1:9", tmp_path / "n", "A", since=datetime.now(UTC), within_wall_s=1)


def test_an_alertmanager_that_refuses_its_configuration_says_why(tmp_path: Path) -> None:
    config = {"route": {"receiver": "nobody"}, "receivers": [{"name": "somebody"}]}
    with pytest.raises(ClusterError, match=r"(?s)alertmanager did not become ready.*nobody"):
        alertmanager_server.start(config, folder=tmp_path, environ=processes.marker(tmp_path, "lease"))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
