"""Every panel that asks Prometheus shows something on this machine: real Prometheus, real Alertmanager, modelled GPU.

A panel that can't is listed with its reason, and that list is held to the truth as well. What only a cluster has is
asked of a page that is written as the exporters document their series.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dashboards.grafana.build import FOLDER
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.standins.pods import Pod, write_pods
from resources import alert_rules, alertmanager_server, processes, prometheus_server
from resources.cluster import Endpoint
from resources.local_components import Place, read_log, start_http_server, start_process, start_vllm
from resources.prometheus_server import ScrapeTarget
from tests.support.grafana import filled

NAMESPACE = "lab-05"
PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
SCRAPE_S = 0.2
TIME_SCALE = 20.0
SOON_S = 60.0

ON_LOCAL = ("l01", "l02", "l03", "l04", "l05", "l06", "gpu-serving")
"""Dashboards of the labs that run on this machine. L07 to L10 ask for series that only a cluster has."""
IN_A_CLUSTER = ("l07", "l08", "l09", "l10")
PAGE = REPO_ROOT / "tests" / "data" / "cluster-series.prom"
ENGINE = [
    *(PHI_3, "--dtype", "half", "--enable-prefix-caching"),
    *("--kv-offloading-size", "4", "--kv-offloading-backend", "native"),
    *("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}'),
]
"""With every feature on that has series of its own and that the modelled engine has."""

EMPTY_HERE = {
    ("l02-gpu-metrics", "GPUs held by a pod"): "dcgm-exporter names a GPU's pod only in a cluster",
    ("l05-gpu-and-llm", "Ready"): "the stand-in for kube-state-metrics has no readiness",
    ("l05-gpu-and-llm", "From pod to ready"): "the stand-in for kube-state-metrics has no times",
    ("gpu-serving", "Ready"): "the stand-in for kube-state-metrics has no readiness",
    ("gpu-serving", "From pod to ready"): "the stand-in for kube-state-metrics has no times",
    ("gpu-serving", "LoRA adapters"): "the modelled engine has no adapters",
}
"""Panels that show nothing on this machine, and why."""


@dataclass
class Stack:
    """What the dashboards look at."""

    prometheus: str
    engine: Endpoint
    web: Endpoint

    def load(self) -> None:
        """A little of everything that panels count: completions, answers, errors."""
        completion = {"model": PHI_3, "prompt": [300] * 64, "max_tokens": 16, "ignore_eos": True}
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(_status, f"{self.engine.base_url}/completions", completion) for _ in range(8)]
            answers += [pool.submit(_status, f"{self.web.base_url}{path}") for path in ("/", "/status/500")]
            assert {answer.result() for answer in answers} == {200, 500}

    def ask(self, promql: str) -> list[float]:
        """The values of an instant query that are numbers."""
        return _ask(self.prometheus, promql)


def _ask(prometheus: str, promql: str, **when: float) -> list[float]:
    query = urllib.parse.urlencode({"query": promql, **when})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=20) as response:
        result = json.load(response)["data"]
    values = [float(sample["value"][1]) for sample in result["result"]]
    return [value for value in values if not math.isnan(value)]


def _status(url: str, body: dict[str, Any] | None = None) -> int:
    """The status of a GET, or of a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def _rules(folder: Path) -> Path:
    """L03's own rules, as fast as the stack."""
    source = REPO_ROOT / "helm-values" / "lab03" / alert_rules.FILE
    document = alert_rules.load(source)
    made = alert_rules.local_rules(document, time_scale=TIME_SCALE, scrape_interval_s=SCRAPE_S, source=str(source))
    path = folder / "rules.json"
    path.write_text(json.dumps(made.content))
    return path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    environ = processes.marker(folder, "lease")
    place = Place(folder, environ, TIME_SCALE, cold_start_time_scale=5000)
    try:
        engine = start_vllm("vllm", ENGINE, "T4", 1, place)
        web = start_http_server("http", place)
        write_pods(folder / "pods.state", {"vllm": Pod(restarts=1, running=True)})
        pods = start_process(
            "pods",
            "lab_pipelines.standins.pod_metrics",
            ["--state", str(folder / "pods.state"), "--namespace", NAMESPACE],
            place,
        )
        alertmanager = alertmanager_server.start(
            {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}, folder=folder, environ=environ
        )
        prometheus = prometheus_server.start(
            interval_s=SCRAPE_S,
            folder=folder,
            environ=environ,
            rule_files=[_rules(folder)],
            alertmanager_url=alertmanager,
            time_scale=TIME_SCALE,
        )
        targets = [
            *engine.targets,
            *web.targets,
            ScrapeTarget("kube-state-metrics", pods["metrics_url"], namespaced=False),
            ScrapeTarget("alertmanager", f"{alertmanager}/metrics", namespaced=False),
        ]
        prometheus_server.announce(prometheus, targets, namespace=NAMESPACE, folder=folder)
        yield Stack(prometheus, engine.endpoint, web.endpoint)
    finally:
        processes.end(processes.find_marked(folder).get("lease", []))


def questions(kind: str, dashboards: tuple[str, ...] = ON_LOCAL) -> list[tuple[str, str, str]]:
    """Dashboard, panel and question of every target that asks a `kind` of data source, variables filled in."""
    found = []
    for path in sorted(path for path in FOLDER.glob("*.json") if path.stem.startswith(dashboards)):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == kind:
                    found.append((path.stem, panel["title"], filled(target["expr"], NAMESPACE)))
    return found


def test_every_panel_that_asks_prometheus_shows_something_or_is_listed_with_a_reason(stack: Stack) -> None:
    asked = questions("prometheus")
    assert {name for name, _, _ in asked} == {p.stem for p in FOLDER.glob("*.json") if p.stem.startswith(ON_LOCAL)}
    expected = [question for question in asked if question[:2] not in EMPTY_HERE]
    deadline = time.monotonic() + SOON_S
    while True:
        # A series that appears with its first request has no growth yet; the next round gives it some.
        stack.load()
        missing = [question for question in expected if not stack.ask(question[2])]
        if not missing:
            break
        assert time.monotonic() < deadline, missing
    assert {question[:2] for question in asked if not stack.ask(question[2])} == EMPTY_HERE.keys()


def test_the_fields_that_log_queries_read_are_in_the_engines_own_lines(stack: Stack) -> None:
    stack.load()
    finished = next(line for line in read_log(Path(str(stack.engine.log))) if line["event"] == "request_finished")
    asked = [expr for name, _, expr in questions("loki") if name == "l04-llm-logs"]
    fields = {field for expr in asked for field in re.findall(r"unwrap (\w+)|\{\{\.(\w+)\}\}", expr) for field in field}
    fields.discard("")
    assert fields >= {"ttft_s", "e2e_s", "output_tokens", "request_id", "model"}
    assert not fields - finished.keys()
    for expr in asked:
        for number in re.findall(r"unwrap (\w+)", expr):
            assert isinstance(finished[number], int | float), number


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes `PAGE`."""
    folder = tmp_path_factory.mktemp("cluster")
    environ = processes.marker(folder, "lease")
    page = PAGE.read_bytes()

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            prometheus = prometheus_server.start(interval_s=SCRAPE_S, folder=folder, environ=environ)
            url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
            target = ScrapeTarget("cluster", url, namespaced=False)
            prometheus_server.announce(prometheus, [target], namespace=NAMESPACE, folder=folder)
            yield prometheus
        finally:
            processes.end(processes.find_marked(folder).get("lease", []))
            server.shutdown()


def test_panels_that_this_machine_cant_fill_have_their_series_where_a_cluster_would(cluster: str) -> None:
    asked = [*questions("prometheus", IN_A_CLUSTER), *(q for q in questions("prometheus") if q[:2] in EMPTY_HERE)]
    assert len(asked) > 40
    deadline = time.monotonic() + SOON_S
    while missing := [question for question in asked if not _ask(cluster, question[2])]:
        assert time.monotonic() < deadline, missing


def test_what_the_serving_dashboard_says_of_cost_and_goodput_follows_from_its_other_panels(stack: Stack) -> None:
    stack.load()
    time.sleep(5 * SCRAPE_S)  # rates take several scrapes after the last request, and Prometheus tells of none
    now = time.time()
    first: dict[str, float] = {}
    for _, title, expr in questions("prometheus", ("gpu-serving",)):
        if values := _ask(stack.prometheus, expr, time=now):
            first.setdefault(title, values[0])
    assert first["Node cost"] == pytest.approx(0.526)
    assert first["USD per 1K output tokens, now"] == pytest.approx(0.526 / 3600 * 1000 / first["Output tokens/s"])
    assert first["USD per 1K tokens"] == pytest.approx(first["USD per 1K output tokens, now"])
    in_time = first["First token in time"] + first["Tokens in time"] - 1
    assert first["Goodput, at least"] == pytest.approx(first["Requests finished"] * max(in_time, 0))
    assert 0 < first["Draft tokens accepted"] <= 1
    assert 0 < first["Prefix cache hit rate"] <= 1


def test_a_model_can_be_chosen_and_another_ones_panels_are_empty(stack: Stack) -> None:
    stack.load()
    selector = urllib.parse.urlencode({"match[]": f'vllm:num_requests_running{{namespace="{NAMESPACE}"}}'})
    url = f"{stack.prometheus}/api/v1/label/model_name/values?{selector}"
    with urllib.request.urlopen(url, timeout=20) as response:
        assert json.load(response)["data"] == [PHI_3]
    path = FOLDER / "gpu-serving.json"
    for model, there in ((PHI_3, True), ("another", False)):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                if panel["title"] == "Requests running and waiting":
                    assert bool(stack.ask(filled(target["expr"].replace("$model", model), NAMESPACE))) == there
