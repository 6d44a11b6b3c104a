"""Bring your own engine: L06 by the main command against llama.cpp, which is not ours and has no vLLM series."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.prices import load_prices
from resources import binaries
from tests.support import main_command
from tests.support.main_command import Place
from tests.support.rows.runs import NOT_BY_RUNS
from tests.support.tiny_llama import TinyLlama, tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SKU = "Standard_NC4as_T4_v3"
STAGES = 2  # of the pace `smoke`: 1 and 4 users
SPEC = load_catalog().spec("L06")


@dataclass(frozen=True)
class Finished:
    """A run of the main command that has ended, and what the engine says that it did meanwhile."""

    code: int
    output: str
    place: Place
    engine: TinyLlama
    engine_output_tokens: float
    engine_prompt_tokens: float

    def ask(self, sql: str) -> list[dict[str, Any]]:
        with duckdb.connect(str(self.place.snapshot), read_only=True) as connection:
            answer = connection.sql(sql)
            return [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyLlama]:
    with tiny_llama(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture(scope="module")
def alone(engine: TinyLlama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Only the base URL is given: no price, and our own Prometheus scrapes the engine."""
    with main_command.prepared(tmp_path_factory.mktemp("alone") / "place") as place:
        yield finish(place, engine, {"LABS_OPENAI_BASE_URL": engine.base_url})


@pytest.fixture(scope="module")
def watched(engine: TinyLlama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """With a price and with a Prometheus that is not ours either, which gives two series vLLM's names."""
    with (
        their_prometheus(engine, tmp_path_factory.mktemp("prometheus")) as prometheus_url,
        main_command.prepared(tmp_path_factory.mktemp("watched") / "place") as place,
    ):
        settings = {
            "LABS_OPENAI_BASE_URL": engine.base_url,
            "LABS_PROMETHEUS_URL": prometheus_url,
            "LABS_PROMETHEUS_SELECTOR": 'team="llm"',
            "LABS_SKU": SKU,
        }
        yield finish(place, engine, settings)


def finish(place: Place, engine: TinyLlama, settings: dict[str, str]) -> Finished:
    before = engine_counters(engine)
    run = main_command.start(place, pace="smoke", environ=settings)
    code = run.wait()
    after = engine_counters(engine)
    output, prompt = (
        after[name] - before[name] for name in ("llamacpp:tokens_predicted_total", "llamacpp:prompt_tokens_total")
    )
    return Finished(code, run.output(), place, engine, output, prompt)


def engine_counters(engine: TinyLlama) -> dict[str, float]:
    with urllib.request.urlopen(engine.metrics_url, timeout=10) as response:
        page = response.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", page, re.MULTILINE)}


@contextmanager
def their_prometheus(engine: TinyLlama, folder: Path) -> Iterator[str]:
    """A Prometheus as a team would run it: two jobs for one engine under different labels, and series renamed."""
    renamed = {
        "llamacpp:tokens_predicted_total": "vllm:generation_tokens_total",
        "llamacpp:requests_processing": "vllm:num_requests_running",
    }
    relabel = [
        {"source_labels": ["__name__"], "regex": theirs, "target_label": "__name__", "replacement": vllms}
        for theirs, vllms in renamed.items()
    ]
    jobs = [
        {
            "job_name": team,
            "static_configs": [
                {"targets": [engine.metrics_url.split("/")[2]], "labels": {"team": team}},
            ],
            "metric_relabel_configs": relabel,
        }
        for team in ("llm", "other")
    ]
    settings = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries.find("prometheus")), *arguments, f"--web.listen-address={address}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    try:
        url = f"http://{address}"
        wait_until_it_has_scraped(process, url, folder / "log")
        yield url
    finally:
        process.kill()
        process.wait()


def wait_until_it_has_scraped(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(f"{url}/api/v1/query?query=count(vllm:num_requests_running)") as response:
                answer = json.load(response)["data"]["result"]
        except (urllib.error.URLError, OSError):
            answer = []
        if answer and answer[0]["value"][1] == "2":
            return
        time.sleep(0.05)  # Prometheus tells nobody that it has scraped


def test_the_whole_lab_succeeds_against_an_engine_that_is_not_ours(alone: Finished) -> None:
    assert alone.code == 0, alone.output
    assert len(alone.ask("SELECT * FROM load_stages")) == STAGES
    assert list(alone.place.data_dir.glob("report/*.html"))


def test_every_row_says_that_it_was_measured_on_an_external_engine_in_real_time(alone: Finished) -> None:
    tables = alone.ask("SELECT table_name FROM duckdb_columns() WHERE column_name = 'provenance' AND NOT internal")
    others = {"bill_current", "bill_by_day", "bill_shares_current", *NOT_BY_RUNS}
    names = {row["table_name"] for row in tables if row["table_name"] not in others}
    assert {"stack_sessions", "requests", "load_stages", "metric_summaries", "cost_records", "finops_sheet"} <= names
    for name in names:
        kinds = alone.ask(f'SELECT DISTINCT engine, provenance, time_scale FROM "{name}"')
        assert kinds in ([], [{"engine": "external", "provenance": "measured", "time_scale": 1.0}]), name


def test_every_answer_has_exactly_512_and_256_tokens_and_the_engine_counted_the_same(alone: Finished) -> None:
    requests = alone.ask("SELECT * FROM requests")
    done = [r for r in requests if r["outcome"] == "ok"]
    assert {(r["input_tokens"], r["output_tokens"]) for r in done} == {(512, 256)}
    assert {r["outcome"] for r in requests} <= {"ok", "cut"}, "a failed request"
    assert all(0 < r["ttft_s"] < r["e2e_s"] for r in done)
    # Eight prompt tokens and one output token belong to the probe that asks whether the engine answers.
    assert alone.engine_prompt_tokens == pytest.approx(512 * len(requests) + 8, rel=0.01)
    assert alone.engine_output_tokens == pytest.approx(sum(r["output_tokens"] for r in requests) + 1, rel=0.01)


def test_what_the_engine_does_not_export_is_a_gap_with_a_reason_and_never_a_zero(alone: Finished) -> None:
    summaries = alone.ask("SELECT * FROM metric_summaries")
    assert len(summaries) == STAGES * len(SPEC.measures)
    assert {s["measure"] for s in summaries} == {m.name for m in SPEC.measures}
    assert all(s["status"] == "gap" and s["value"] is None and s["gap_reason"] for s in summaries)
    assert alone.ask("SELECT * FROM metric_samples") == []
    totals = alone.ask("SELECT server_total, disagreement, client_total FROM counter_totals")
    assert [t["server_total"] for t in totals] == [None, None]
    assert all(t["client_total"] > 0 for t in totals)


def test_without_a_known_machine_the_cost_is_unknown_and_not_zero(alone: Finished) -> None:
    sheet = alone.ask("SELECT * FROM finops_sheet")
    assert len(sheet) == STAGES + 1
    assert all(row["node_hours"] > 0 and row["output_tokens"] > 0 for row in sheet)
    assert {row["usd"] for row in sheet} == {row["usd_per_1k_tokens"] for row in sheet} == {None}
    assert {row["ListCost"] for row in alone.ask("SELECT ListCost FROM cost_records")} == {None}


def test_an_engine_that_was_already_up_has_no_cold_start(alone: Finished) -> None:
    closed = alone.ask("SELECT * FROM stack_sessions WHERE state = 'closed'")
    assert [(row["cold_start_s"], row["model"], row["sku"]) for row in closed] == [(None, "tiny-llama", None)]
    assert alone.ask("SELECT * FROM cost_records WHERE x_part = 'cold_start'") == []


def test_the_engine_is_left_up_and_everything_of_ours_is_gone(alone: Finished) -> None:
    assert alone.engine.process.poll() is None
    with urllib.request.urlopen(f"{alone.engine.base_url}/models", timeout=10) as response:
        assert response.status == 200
    assert main_command.processes_of(alone.place) == []
    assert alone.place.lease() is None


def test_a_named_machine_prices_the_run(watched: Finished) -> None:
    assert watched.code == 0, watched.output
    price = load_prices().price(SKU, "eastus").on_demand
    session = watched.ask("SELECT * FROM finops_sheet WHERE stage IS NULL")[0]
    assert session["sku"] == SKU
    assert float(session["usd"]) == pytest.approx(float(price) * session["node_hours"], rel=1e-6)
    assert session["usd_per_1k_tokens"] > 0
    assert session["cold_start_usd"] == 0


def test_their_prometheus_is_asked_under_the_selector_and_no_other_is_started(watched: Finished) -> None:
    assert not list(watched.place.data_dir.rglob("prometheus*"))
    total = watched.ask("SELECT * FROM counter_totals WHERE quantity = 'output_tokens'")[0]
    # The same engine is scraped for another team, too: without the selector, the total would be twice the client's.
    assert total["server_total"] == pytest.approx(total["client_total"], rel=0.01)
    assert all('team="llm"' in row["promql"] for row in watched.ask("SELECT promql FROM metric_summaries"))


def test_series_that_their_prometheus_renames_to_vllms_are_measures_and_the_others_stay_gaps(watched: Finished) -> None:
    present = {"output_tokens_per_s", "requests_running"}
    summaries = watched.ask("SELECT * FROM metric_summaries")
    assert {s["measure"] for s in summaries if s["status"] == "ok"} == present
    assert {s["measure"] for s in summaries if s["status"] == "gap"} == {m.name for m in SPEC.measures} - present
    running = {s["users"]: s["value"] for s in summaries if s["measure"] == "requests_running"}
    assert 0 < running[1] <= 1 < running[4] <= 4


def test_a_wrong_base_url_fails_the_command_with_one_message_that_names_the_remedy(tmp_path: Path) -> None:
    with main_command.prepared(tmp_path / "place") as place, closed_port() as url:
        run = main_command.start(place, pace="smoke", environ={"LABS_OPENAI_BASE_URL": f"{url}/v1"})
        assert run.wait() == 1
        messages = set(re.findall(r"ClusterError: (.*)", run.output()))
        assert len(messages) == 1
        message = messages.pop()
        assert message.startswith(f"{url}/v1/models does not name a model")
        assert "LABS_OPENAI_BASE_URL" in message
        assert place.lease() is None and main_command.processes_of(place) == []


@contextmanager
def closed_port() -> Iterator[str]:
    """A loopback address on which nobody can listen while the block runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
