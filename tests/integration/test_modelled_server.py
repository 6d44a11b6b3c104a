"""The modelled vLLM server as its users meet it: a real process, real clients, loopback only."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

PHI_3 = "microsoft/Phi-3-mini-4k-instruct"
PROMPT = [300] * 512
STARTED_WITHIN_S = 60
SOON_S = 60


class Server:
    """One server process and what it announced."""

    def __init__(self, folder: Path, *vllm: str, time_scale: float) -> None:
        self.log = folder / "server.jsonl"
        announce = folder / "server.json"
        self.process = subprocess.Popen(
            [
                *[sys.executable, "-m", "lab_pipelines.engine.serve", "--gpu", "T4"],
                *["--time-scale", str(time_scale), "--cold-start-time-scale", "5000"],
                *["--announce", str(announce), "--log", str(self.log)],
                *["--", PHI_3, "--dtype", "half", "--no-enable-prefix-caching", *vllm],
            ]
        )
        wait_until(lambda: announce.exists() or self.process.poll() is not None, STARTED_WITHIN_S)
        assert self.process.poll() is None, self.log.read_text()
        self.announced = json.loads(announce.read_text())
        self.base_url: str = self.announced["base_url"]
        self.address = self.base_url.removeprefix("http://").removesuffix("/v1")
        self.openai = openai.OpenAI(base_url=self.base_url, api_key="none", max_retries=0, timeout=60)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def lines(self, event: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in parsed if line["event"] == event]

    def finished(self, request_id: str) -> dict[str, Any]:
        """The line of a request that was answered; it is written once the answer is out."""
        deadline = time.monotonic() + 10
        while True:
            found = [line for line in self.lines("request_finished") if line["request_id"] == request_id]
            if found or time.monotonic() > deadline:
                (line,) = found
                return line
            time.sleep(0.02)  # a log tells nobody that it has grown

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics that has no `le`, by name and the labels that aren't the same for all."""
        with urllib.request.urlopen(self.announced["metrics_url"], timeout=30) as response:
            text = response.read().decode()
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = [v for k, v in sorted(sample.labels.items()) if k not in ("engine", "model_name")]
                found[" ".join([sample.name, *labels])] = sample.value
        return found

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def completion(**fields: Any) -> bytes:
    return json.dumps({"model": PHI_3, "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True, **fields}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), time_scale=20)
    yield running
    running.stop()


def test_the_openai_client_gets_a_completion_with_exact_token_counts(server: Server) -> None:
    answer = server.openai.completions.create(
        model=PHI_3, prompt=PROMPT, max_tokens=24, temperature=0, extra_body={"min_tokens": 24, "ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "length"
    assert len(answer.choices[0].text.split()) == 24
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (512, 24, 536)


def test_the_openai_client_streams_a_chat_token_by_token_and_gets_the_usage_last(server: Server) -> None:
    stream = server.openai.chat.completions.create(
        model=PHI_3,
        messages=[{"role": "user", "content": "What is a lease?"}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(words) == 12
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_the_openai_client_streams_a_completion_with_the_text_of_the_whole_one(server: Server) -> None:
    fields: dict[str, Any] = {
        "model": PHI_3,
        "prompt": "Tell me.",
        "max_tokens": 10,
        "extra_body": {"ignore_eos": True},
    }
    whole = server.openai.completions.create(**fields)
    pieces = [chunk.choices[0].text for chunk in server.openai.completions.create(**fields, stream=True)]
    assert len(pieces) == 10
    assert "".join(pieces) == whole.choices[0].text


def test_errors_reach_the_openai_client_as_vllms_do(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        server.openai.completions.create(model="nope", prompt="a")
    assert unknown.value.body == {
        "message": "The model `nope` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
    with pytest.raises(openai.BadRequestError, match="maximum context length is 4096 tokens"):
        server.openai.completions.create(model=PHI_3, prompt=PROMPT, max_tokens=4000)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b'{"prompt": "a", "max_tokens": "x"}', 400),
        ("POST", "/v1/nothing", b"{}", 404),
        ("GET", "/v1/completions", None, 405),
        ("POST", "/health", b"", 405),
    ],
)
def test_a_wrong_call_is_answered_with_openais_error_body(
    server: Server, method: str, path: str, body: bytes | None, status: int
) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=30)
    connection.request(method, path, body)
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    connection.close()
    assert (response.status, error["code"]) == (status, status)
    assert error.keys() == {"message", "type", "param", "code"}


def test_models_health_and_version_answer(server: Server) -> None:
    models = server.openai.models.list().data
    assert [model.id for model in models] == [PHI_3]
    assert models[0].model_extra is not None
    assert models[0].model_extra["max_model_len"] == 4096
    with urllib.request.urlopen(f"http://{server.address}/health", timeout=30) as response:
        assert (response.status, response.read()) == (200, b"")
    with urllib.request.urlopen(f"http://{server.address}/version", timeout=30) as response:
        assert json.load(response) == {"version": "0.32.0", "engine": "modelled-vllm"}


def test_without_the_header_a_stream_is_plain_events(server: Server) -> None:
    status, headers, body = server.post("/v1/completions", completion(stream=True))
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert not [name for name in headers if name.startswith("x-labs")]
    events = body.split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert len(events) == 8 + 2
    assert all(re.fullmatch(rb'data: \{"id":"cmpl-[^\n]*\}', event) for event in events[:8])


def test_with_the_header_every_event_is_stamped_on_the_machines_own_clock(server: Server) -> None:
    before = time.monotonic_ns()
    _, headers, body = server.post("/v1/completions", completion(stream=True), **{"x-labs-stamps": "1"})
    after = time.monotonic_ns()
    assert headers["x-labs-clock"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    stamps = [int(stamp) for stamp in re.findall(rb"(?:^|\n\n): sent_ns=(\d+)\ndata: ", body)]
    assert len(stamps) == body.count(b"data: ") == 8 + 1
    moments = [before, int(headers["x-labs-received-ns"]), *stamps, after]
    assert moments == sorted(moments)
    # Eight tokens of a T4 take a prefill of some 0.15 s and seven steps of 0.036 s, twenty times as fast.
    assert (stamps[-1] - int(headers["x-labs-received-ns"])) / 1e9 * 20 >= 0.15 + 7 * 0.035


def test_the_counters_agree_with_the_client_and_histograms_are_in_stack_seconds(server: Server) -> None:
    before = server.metrics()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.post("/v1/completions", completion(max_tokens=32)), range(16)))
    usages = [json.loads(body)["usage"] for status, _, body in answers if status == 200]
    assert len(usages) == 16
    after = server.metrics()

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert grown("vllm:prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in usages)
    assert grown("vllm:generation_tokens_total") == sum(usage["completion_tokens"] for usage in usages)
    assert grown("vllm:request_success_total length") == 16
    assert grown("vllm:time_to_first_token_seconds_count") == 16
    assert grown("vllm:inter_token_latency_seconds_count") == 16 * 31
    assert grown("vllm:e2e_request_latency_seconds_count") == 16
    assert grown("vllm:request_generation_tokens_sum") == 16 * 32
    # Never faster than the model: 0.035 stack seconds per token, where a wall second counts twenty.
    assert grown("vllm:inter_token_latency_seconds_sum") / (16 * 31) >= 0.035
    assert grown("vllm:time_to_first_token_seconds_sum") / 16 >= 0.15
    assert grown("http_requests_total /v1/completions POST 2xx") == 16
    assert (after["vllm:num_requests_running"], after["vllm:num_requests_waiting"]) == (0, 0)
    assert after["vllm:kv_cache_usage_perc"] == 0
    assert after["labs_engine_time_scale"] == 20


def test_a_finished_request_is_a_line_of_json_in_the_log(server: Server) -> None:
    _, _, body = server.post("/v1/completions", completion(max_tokens=5))
    request_id = json.loads(body)["id"]
    line = server.finished(request_id)
    assert (line["level"], line["model"], line["finished_reason"]) == ("info", PHI_3, "length")
    assert (line["prompt_tokens"], line["output_tokens"], line["preemptions"]) == (512, 5, 0)
    assert 0.15 <= line["ttft_s"] < line["e2e_s"]
    # Four more tokens after the first are never sooner than the model has them, however late the first one's stamp was.
    assert line["e2e_s"] >= 0.15 + 4 * 0.035
    assert line["output_tokens_per_s"] == pytest.approx(4 / (line["e2e_s"] - line["ttft_s"]), rel=1e-3)


def test_the_cold_start_phases_of_the_process_are_in_the_log_with_their_stack_seconds(server: Server) -> None:
    phases = server.lines("cold_start")
    assert [phase["phase"] for phase in phases] == ["model_loaded", "engine_ready"]
    assert all(phase["duration_s"] > 50 for phase in phases)
    times = [moment for phase in phases for moment in (phase["started_at"], phase["ended_at"])]
    assert times == sorted(times)
    assert all(phase["ended_at"] - phase["started_at"] >= phase["duration_s"] / 5000 * 0.99 for phase in phases)


def test_the_gpu_shows_the_load(server: Server) -> None:
    def gpu() -> dict[str, float]:
        with urllib.request.urlopen(server.announced["dcgm_url"], timeout=30) as response:
            families = text_string_to_metric_families(response.read().decode())
            return {family.name: family.samples[0].value for family in families}

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, "/v1/completions", completion(max_tokens=2000))
        wait_until(lambda: gpu()["DCGM_FI_DEV_GPU_UTIL"] > 90, SOON_S)
        busy = gpu()
        assert waiting.result()[0] == 200
    assert busy["DCGM_FI_DEV_POWER_USAGE"] > 60
    assert busy["DCGM_FI_DEV_SM_CLOCK"] == 1590
    wait_until(lambda: gpu()["DCGM_FI_DEV_GPU_UTIL"] == 0, SOON_S)
    assert gpu()["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"] > busy["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_aborts_its_request_and_frees_its_blocks(server: Server, stream: bool) -> None:
    before = server.metrics()["vllm:request_success_total abort"]
    connection = http.client.HTTPConnection(server.address, timeout=30)
    connection.request("POST", "/v1/completions", completion(stream=stream, max_tokens=3500))
    wait_until(lambda: server.metrics()["vllm:num_requests_running"] == 1, SOON_S)
    assert server.metrics()["vllm:kv_cache_usage_perc"] > 0
    if connection.sock is not None:
        connection.sock.close()
    connection.close()
    wait_until(lambda: server.metrics()["vllm:request_success_total abort"] == before + 1, SOON_S)
    after = server.metrics()
    assert (after["vllm:num_requests_running"], after["vllm:kv_cache_usage_perc"]) == (0, 0)
    assert server.lines("request_finished")[-1]["finished_reason"] == "abort"


def test_a_full_cache_makes_requests_wait_and_preempts_without_losing_a_token(tmp_path: Path) -> None:
    # 0.65 of a T4's memory leaves 242 blocks, 3,872 tokens: seven prompts fit, and seven whole requests don't.
    running = Server(tmp_path, "--gpu-memory-utilization", "0.65", "--max-model-len", "2048", time_scale=100)
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: running.post("/v1/completions", completion(max_tokens=256)), range(8)))
        assert [json.loads(body)["usage"]["completion_tokens"] for _, _, body in answers] == [256] * 8
        metrics = running.metrics()
        assert metrics["vllm:num_preemptions_total"] > 0
        assert metrics["vllm:request_num_preemptions_sum"] == metrics["vllm:num_preemptions_total"]
        assert metrics["vllm:generation_tokens_total"] == 8 * 256
    finally:
        running.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_at_once_even_with_open_streams(tmp_path: Path, number: int) -> None:
    running = Server(tmp_path, time_scale=1)
    connection = http.client.HTTPConnection(running.address, timeout=30)
    connection.request("POST", "/v1/completions", completion(stream=True, max_tokens=2000))
    assert connection.getresponse().readline().startswith(b"data: ")
    running.process.send_signal(number)
    # At this pace the stream would last more than a minute.
    assert running.process.wait(10) == 0
    connection.close()
    assert running.lines("stopped")


def failed(folder: Path, *arguments: str) -> tuple[int, str, list[dict[str, Any]]]:
    log = folder / "server.jsonl"
    done = subprocess.run(
        [
            *[sys.executable, "-m", "lab_pipelines.engine.serve", "--cold-start-time-scale", "5000"],
            *["--announce", str(folder / "server.json"), "--log", str(log), *arguments],
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not (folder / "server.json").exists()
    assert "Traceback" not in done.stderr
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done.returncode, done.stderr, lines


def test_a_model_that_does_not_fit_ends_with_an_out_of_memory_error_in_the_log(tmp_path: Path) -> None:
    model = "meta-llama/Meta-Llama-3-8B-Instruct"
    code, stderr, lines = failed(tmp_path, "--gpu", "T4", "--", model, "--no-enable-prefix-caching")
    assert code == 1
    assert "CUDA out of memory" in stderr
    assert [(line["level"], line["event"]) for line in lines] == [("error", "out_of_memory")]
    assert lines[0]["message"] == stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "T4", "--", PHI_3, "-tp", "2"), "World size (2) is larger than the number of available GPUs (1)"),
        (("--gpu", "T5", "--", PHI_3), "GPU 'T5' is not modelled; modelled are: T4"),
        (("--gpu", "T4", "--", PHI_3, "--port", "80"), "'--port' is not modelled"),
        (("--gpu", "T4", "--time-scale", "0", "--", PHI_3), "0 is not a positive number"),
    ],
)
def test_a_wrong_argument_ends_the_process_with_the_remedy(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, stderr, _ = failed(tmp_path, *arguments)
    assert code == 2
    assert message in stderr


def test_a_port_that_is_taken_is_named(server: Server, tmp_path: Path) -> None:
    port = server.address.rpartition(":")[2]
    code, stderr, lines = failed(tmp_path, "--gpu", "T4", "--port", port, "--", PHI_3, "--no-enable-prefix-caching")
    assert code == 1
    assert f"--port {port} can't be bound" in stderr
    assert lines[-1]["event"] == "port_in_use"
