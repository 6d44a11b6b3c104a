"""From a spec's load step to the warehouse: the real Locust against the servers that labs meet on this machine."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.load_plan import load_plan
from lab_pipelines.rows.load import request_rows, stage_rows
from resources.cluster import Endpoint
from resources.load_generator import LoadResult
from resources.warehouse import Warehouse
from tests.integration.test_modelled_server import PHI_3, Server
from tests.support.locust_runs import run
from tests.support.sessions import endpoint, session
from tests.support.standin import standin
from tests.support.warehouses import warehouse_in

pytestmark = pytest.mark.alone

WHERE = {"target": "local", "lab": "L06", "run_id": "run-1"}


def applied(step: LoadStep, pace: Pace, at: Endpoint, folder: Path, **changes: Any) -> tuple[Warehouse, LoadResult]:
    """Apply `step` and publish its rows; the warehouse that holds them, and what Locust recorded."""
    up = session(endpoints=[at], time_scale=pace.time_scale, **changes)
    plan = load_plan(up, step, pace)
    result = run(plan, folder / "load")
    warehouse = warehouse_in(folder)
    warehouse.publish("requests", request_rows(up, plan, result), **WHERE)
    warehouse.publish("load_stages", stage_rows(up, plan, result), **WHERE)
    return warehouse, result


def completion(input_tokens: int, output_tokens: int, weight: float) -> dict[str, Any]:
    return {
        "kind": "completion",
        "weight": weight,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "temperature": 0.0,
        "prompts": f"load-tests/prompts/fixed-{input_tokens}.json",
        "timeout_s": 600.0,
    }


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    running = Server(tmp_path_factory.mktemp("engine"), time_scale=20)
    yield running
    running.stop()


def test_long_and_short_prompts_at_a_rate_can_be_told_apart_in_sql(engine: Server, tmp_path: Path) -> None:
    step = LoadStep.model_validate(
        {
            "kind": "load",
            "name": "mixed",
            "profile": {"kind": "rate", "per_s": [0.5], "arrivals": "poisson"},
            "requests": [completion(2048, 8, 1.0), completion(128, 16, 2.0)],
        }
    )
    pace = Pace(time_scale=20.0, hold_s=40.0, min_requests=18, requests_per_user=1, max_hold_s=600.0)
    warehouse, _ = applied(step, pace, endpoint("vllm", "vllm", engine.base_url), tmp_path, model=PHI_3)

    long, short = warehouse.query(
        """
        SELECT shape, count(*) AS n, min(ttft_s) AS ttft_s, bool_and(valid) AS valid,
               bool_and(input_tokens = expected_input_tokens AND output_tokens = expected_output_tokens) AS exact,
               any_value(input_tokens) AS input_tokens, max(schedule_lag_s / time_scale) AS lag_wall_s
        FROM requests WHERE outcome = 'ok' AND in_stage GROUP BY shape ORDER BY shape
        """
    )
    assert (long["shape"], long["input_tokens"], short["shape"], short["input_tokens"]) == (0, 2048, 1, 128)
    assert (long["exact"], short["exact"]) == (True, True)
    assert long["n"] + short["n"] >= 18
    assert abs(long["n"] - short["n"] / 2) <= 3
    assert long["ttft_s"] > 2 * short["ttft_s"], "a T4 reads sixteen times as long"
    (stage,) = warehouse.query("SELECT * FROM stage_table")
    assert (stage["load"], stage["offered_per_s"], stage["users"]) == ("0.5/s", 0.5, None)
    assert stage["ttft_n"] == warehouse.query("SELECT count(*) AS n FROM requests WHERE valid")[0]["n"]


def test_a_burst_beyond_the_engines_seats_shows_in_the_first_tokens_of_the_last(engine: Server, tmp_path: Path) -> None:
    step = LoadStep.model_validate(
        {
            "kind": "load",
            "name": "burst",
            "profile": {"kind": "burst", "requests": 12},
            "requests": [completion(512, 8, 1.0)],
        }
    )
    pace = Pace(time_scale=20.0, hold_s=40.0, min_requests=50, requests_per_user=3, max_hold_s=600.0)
    warehouse, result = applied(step, pace, endpoint("vllm", "vllm", engine.base_url), tmp_path, model=PHI_3)
    assert {(r.outcome, r.in_stage) for r in result.requests} == {("ok", True)}
    (stage,) = warehouse.query("SELECT * FROM stage_table")
    assert (stage["load"], stage["users"], stage["requests"], stage["min_requests"]) == ("burst of 12", 12, 12, 12)
    first, last = warehouse.query("SELECT min(ttft_s) AS a, max(ttft_s) AS b FROM requests")[0].values()
    assert last > 2 * first, "a step reads a few of the prompts at a time"


def test_gets_are_counted_by_the_server_as_by_the_client(tmp_path: Path) -> None:
    gets = {"kind": "http", "timeout_s": 10.0}
    step = LoadStep.model_validate(
        {
            "kind": "load",
            "name": "traffic",
            "component": "http",
            "profile": {"kind": "rate", "per_s": [4.0, 8.0]},
            "requests": [
                {**gets, "path": "/status/200", "weight": 17.0},
                {**gets, "path": "/status/500", "expect": 500, "weight": 2.0},
                {**gets, "path": "/delay/2", "weight": 1.0},
            ],
        }
    )
    pace = Pace(time_scale=5.0, hold_s=6.0, min_requests=20, requests_per_user=1, max_hold_s=60.0)
    with standin("http_server", tmp_path, "--log", str(tmp_path / "http.jsonl"), "--time-scale", "5") as server:
        at = endpoint("http", "http_server", server.announced["base_url"])
        warehouse, result = applied(step, pace, at, tmp_path, model=None, engine="none")
        with urllib.request.urlopen(server.announced["metrics_url"], timeout=30) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
    counted = {
        (sample.labels["path"], sample.labels["status"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "http_request_duration_seconds_count"
    }
    # A request that was cut at the end may or may not have reached the server.
    cut = sum(r.outcome == "cut" for r in result.requests)
    for shape, series in enumerate([("status", "200"), ("status", "500"), ("delay", "200")]):
        mine = sum(r.shape == shape and r.outcome == "ok" for r in result.requests)
        assert mine > 0
        assert mine <= counted[series] <= mine + cut
    delayed = warehouse.query("SELECT min(e2e_s) AS e2e_s FROM requests WHERE path = '/delay/2' AND outcome = 'ok'")
    assert delayed[0]["e2e_s"] >= 2.0, "in stack seconds"
    stages = warehouse.query("SELECT * FROM stage_table ORDER BY stage")
    assert [(s["load"], s["error_rate"], s["output_tokens_per_s"]) for s in stages] == [
        ("4/s", 0.0, None),
        ("8/s", 0.0, None),
    ]
    for stage in stages:
        assert stage["requests_per_s"] == pytest.approx(stage["offered_per_s"], rel=0.25)
        assert stage["e2e_p50_s"] < 2.0
