"""The stand-ins as Prometheus, Alertmanager and a load generator meet them: real processes, loopback only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab_pipelines.standins.pods import Pod, write_pods
from tests.support.standin import Standin, standin

Labels = dict[str, str]


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def samples(url: str) -> list[tuple[str, Labels, float]]:
    status, page = get(url)
    assert status == 200
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    ]


def value(found: list[tuple[str, Labels, float]], name: str, **labels: str) -> float:
    [one] = [v for n, has, v in found if n == name and labels.items() <= has.items()]
    return one


# --- http_server ---

TIME_SCALE = 50.0


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Standin, Path]]:
    folder = tmp_path_factory.mktemp("http")
    log = folder / "http.jsonl"
    with standin("http_server", folder, "--log", str(log), "--time-scale", str(TIME_SCALE)) as running:
        yield running, log


def test_every_path_of_podinfo_that_a_lab_asks_for_answers(http: tuple[Standin, Path]) -> None:
    base = http[0].announced["base_url"]
    answers = {
        path: get(base + path) for path in ("/", "/healthz", "/readyz", "/status/503", "/status/204", "/delay/0")
    }
    assert {path: status for path, (status, _) in answers.items()} == {
        "/": 200,
        "/healthz": 200,
        "/readyz": 200,
        "/status/503": 503,
        "/status/204": 204,
        "/delay/0": 200,
    }
    assert json.loads(answers["/status/503"][1]) == {"status": 503}
    assert json.loads(answers["/healthz"][1]) == {"status": "OK"}
    assert answers["/status/204"][1] == b""


def test_a_status_that_ends_no_request_is_refused_with_the_remedy(http: tuple[Standin, Path]) -> None:
    status, body = get(http[0].announced["base_url"] + "/status/700")
    assert status == 400
    assert "from 200 to 599" in json.loads(body)["message"]


def test_requests_are_counted_with_podinfos_names_labels_and_buckets(http: tuple[Standin, Path]) -> None:
    base, metrics_url = http[0].announced["base_url"], http[0].announced["metrics_url"]
    for _ in range(3):
        get(f"{base}/status/418")
    found = samples(metrics_url)
    ours = {"method": "GET", "path": "status", "status": "418"}
    assert value(found, "http_requests_total", status="418") == 3
    assert value(found, "http_request_duration_seconds_count", **ours) == 3
    assert all(has.keys() == {"status"} for name, has, _ in found if name == "http_requests_total")
    buckets = {has["le"]: v for name, has, v in found if name.endswith("_bucket") and ours.items() <= has.items()}
    # client_golang's DefBuckets as client_golang writes them.
    assert list(buckets) == ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]
    assert buckets["+Inf"] == 3
    assert not [name for name, _, _ in found if name.endswith("_created")]


def test_scrapes_are_requests_and_unknown_paths_are_not(http: tuple[Standin, Path]) -> None:
    base, metrics_url = http[0].announced["base_url"], http[0].announced["metrics_url"]
    samples(metrics_url)
    before = samples(metrics_url)
    assert get(f"{base}/nowhere")[0] == 404
    after = samples(metrics_url)
    scrape = {"path": "metrics", "status": "200"}
    count = "http_request_duration_seconds_count"
    assert value(after, count, **scrape) == value(before, count, **scrape) + 1
    assert not [has for _, has, _ in after if has.get("status") == "404"]


def test_a_delay_passes_and_is_observed_in_stack_seconds(http: tuple[Standin, Path]) -> None:
    base, metrics_url = http[0].announced["base_url"], http[0].announced["metrics_url"]
    get(f"{base}/delay/4")
    found = samples(metrics_url)
    slow = {"path": "delay", "status": "200"}
    assert value(found, "http_request_duration_seconds_sum", **slow) >= 4.0
    # A 4 s delay can't be in a bucket below it, whatever the machine does; /delay/0 may have been asked before.
    in_2_5 = value(found, "http_request_duration_seconds_bucket", le="2.5", **slow)
    assert in_2_5 == value(found, "http_request_duration_seconds_count", **slow) - 1


def test_the_log_has_one_line_for_each_counted_request(http: tuple[Standin, Path]) -> None:
    running, log = http
    get(running.announced["base_url"] + "/status/599")
    # The line is written once the answer is out, which on a busy machine may be after it was read.
    deadline = time.monotonic() + 10
    while not (found := [line for line in log.read_text().splitlines() if "/status/599" in line]):
        assert time.monotonic() < deadline, "the request never came into the log"
        time.sleep(0.02)
    [line] = [json.loads(line) for line in found]
    assert line["level"] == "error" and line["event"] == "request" and line["method"] == "GET"
    assert line["status"] == 599 and line["duration_s"] >= 0 and line["ts"] > 1.7e9
    counted = sum(v for name, _, v in samples(running.announced["metrics_url"]) if name == "http_requests_total")
    # The scrape that was just answered comes into the log as well, once its answer is out, and not onto its own page.
    while (logged := len(log.read_text().splitlines())) < counted + 1:
        assert time.monotonic() < deadline, f"{logged} lines for {counted} counted requests and the scrape"
        time.sleep(0.02)
    assert logged == counted + 1


def test_a_port_that_is_taken_is_named_with_the_remedy(http: tuple[Standin, Path], tmp_path: Path) -> None:
    port = http[0].announced["base_url"].rsplit(":", 1)[1]
    done = subprocess.run(
        [
            *[sys.executable, "-m", "lab_pipelines.standins.http_server", "--port", port],
            *["--announce", str(tmp_path / "a.json"), "--log", str(tmp_path / "l.jsonl")],
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"--port {port} can't be bound on 127.0.0.1" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a.json").exists()


# --- pod_metrics ---


def test_pods_are_told_with_the_names_and_labels_of_kube_state_metrics(tmp_path: Path) -> None:
    state = tmp_path / "pods.json"
    write_pods(state, {"http": Pod(restarts=0, running=True), "vllm": Pod(restarts=2, running=False)})
    with standin("pod_metrics", tmp_path, "--state", str(state), "--namespace", "lab-03") as running:
        url = running.announced["metrics_url"]
        found = samples(url)
        restarts, runs = "kube_pod_container_status_restarts_total", "kube_pod_container_status_running"
        assert {name for name, _, _ in found} == {restarts, runs}
        assert all(has.keys() == {"namespace", "pod", "uid", "container"} for _, has, _ in found)
        assert value(found, restarts, namespace="lab-03", pod="vllm-0", container="vllm") == 2
        assert value(found, runs, container="vllm") == 0 and value(found, runs, container="http") == 1
        write_pods(state, {"http": Pod(restarts=1, running=True)})
        assert value(samples(url), restarts, container="http") == 1


@pytest.mark.parametrize("content", [None, "{", '{"http": {"restarts": 1}}'])
def test_a_state_that_cannot_be_read_fails_the_scrape_instead_of_losing_the_pods(
    tmp_path: Path, content: str | None
) -> None:
    state = tmp_path / "pods.json"
    if content is not None:
        state.write_text(content)
    with standin("pod_metrics", tmp_path, "--state", str(state), "--namespace", "lab-03") as running:
        status, body = get(running.announced["metrics_url"])
    assert status == 500
    assert b"the state file can't be read" in body


# --- webhook ---


def test_each_alert_of_a_notification_becomes_a_line_and_anything_else_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "notifications.jsonl"
    alert = {
        "status": "firing",
        "labels": {"alertname": "A", "namespace": "lab-03"},
        "annotations": {"summary": "s"},
        "startsAt": "2026-03-04T10:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
    }
    other = {**alert, "status": "resolved", "labels": {"alertname": "B"}}
    payload = {"version": "4", "receiver": "team", "groupLabels": {"namespace": "lab-03"}, "alerts": [alert, other]}
    with standin("webhook", tmp_path, "--log", str(log)) as running:
        url = running.announced["url"]
        assert post(url, json.dumps(payload).encode()) == 200
        assert post(url, b"{") == 400
        assert post(url, b'{"alerts": [{"labels": {}}]}') == 400
    first, second = [json.loads(line) for line in log.read_text().splitlines()]
    assert first.pop("at") > 1.7e9
    assert first == {
        "status": "firing",
        "alertname": "A",
        "labels": alert["labels"],
        "annotations": alert["annotations"],
        "starts_at": alert["startsAt"],
        "ends_at": alert["endsAt"],
        "group_labels": {"namespace": "lab-03"},
        "receiver": "team",
    }
    assert (second["alertname"], second["status"]) == ("B", "resolved")
