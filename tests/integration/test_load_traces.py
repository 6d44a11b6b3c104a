"""Replayed traces and changing rates through the real Locust, in one process and in two, and in a rehearsal."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetKey, Failure
from streaming_load.plan import read_plan
from streaming_load.schedule import offsets

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.steps import LoadStep
from lab_pipelines.deployment import Deployment
from lab_pipelines.load_plan import load_plan
from lab_pipelines.rehearsal.load import Replay
from lab_pipelines.rows.load import request_rows, stage_rows
from resources.labs import Labs
from resources.load_generator import LoadError, LoadPlan
from resources.warehouse import Warehouse
from tests.integration.test_modelled_server import PHI_3, Server
from tests.support.copied_catalog import copied_catalog
from tests.support.locust_runs import run
from tests.support.sessions import endpoint, session
from tests.support.sse_server import SseServer, completion
from tests.support.warehouses import warehouse_in
from tests.support.worlds import world_with

pytestmark = pytest.mark.alone

PACE = Pace(time_scale=20.0, hold_s=5.0, min_requests=500, requests_per_user=1, max_hold_s=200.0)
"""Neither its hold nor its minimum is a trace's."""


def replay(form: str, file: str, **profile: Any) -> LoadStep:
    fields = {"kind": "trace", "file": f"load-tests/traces/{file}", "format": form, "duration_s": 30.0, **profile}
    request = {
        "kind": "traced",
        "max_input_tokens": 1024,
        "max_output_tokens": 24,
        "temperature": 0.0,
        "timeout_s": 100,
    }
    return LoadStep.model_validate({"kind": "load", "name": "replay", "profile": fields, "requests": [request]})


def plan_of(step: LoadStep, base_url: str, pace: Pace = PACE) -> tuple[Any, LoadPlan]:
    up = session(endpoints=[endpoint("vllm", "vllm", base_url)], time_scale=pace.time_scale, model=PHI_3)
    return up, load_plan(up, step, pace)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_trace_is_replayed_at_its_times_and_with_its_lengths_whichever_process_sends_it(
    tmp_path: Path, processes: int
) -> None:
    lines: list[str] = []
    with SseServer(completion(ttft_s=0.01, itl_s=0.001)) as server:
        _, load = plan_of(replay("mooncake", "synthetic-mooncake.jsonl", speed=0.5), server.base_url)
        result = run(load, tmp_path / "load", lines, processes=processes)
        received = {r.at_ns: r.body for r in server.received}
    applied = read_plan(tmp_path / "load" / "plan.json")
    assert applied.trace is not None
    (stage,) = result.stages
    wanted = [(row.input_tokens, row.output_tokens) for row in applied.trace.rows]
    assert len(result.requests) == len(wanted) > 40
    assert {r.worker for r in result.requests} == ({"local"} if processes == 1 else {"worker-0", "worker-1"})
    assert {(r.outcome, r.in_stage, r.counted, r.user_index) for r in result.requests} == {("ok", True, True, None)}
    assert [r.scheduled_at - stage.started_at for r in result.requests] == pytest.approx(
        list(offsets(applied, applied.stages[0])), abs=1e-4
    )
    assert [(r.asked_tokens, (r.input_tokens, r.output_tokens)) for r in result.requests] == [
        (one, one) for one in wanted
    ]
    assert sorted((len(body["prompt"]), body["max_tokens"]) for body in received.values()) == sorted(wanted)
    assert all(body["min_tokens"] == body["max_tokens"] for body in received.values())
    # Thirty seconds of the trace at half its speed, on a clock that is twenty times as fast.
    assert stage.ended_at - stage.started_at == pytest.approx(3.0, abs=0.5)
    clipped = applied.trace.clipped
    assert (
        clipped > 0 and f"trace, {len(wanted) / 3:.3g} requests/s on the mean, {clipped} requests clipped" in lines[-1]
    )
    # Every prompt begins as all others, and is its own somewhere.
    assert len({tuple(body["prompt"][:512]) for body in received.values()}) == 1
    assert len({tuple(body["prompt"]) for body in received.values()}) == len(wanted)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    running = Server(tmp_path_factory.mktemp("engine"), "--enable-prefix-caching", time_scale=20)
    yield running
    running.stop()


def published(folder: Path, up: Any, load: LoadPlan, result: Any) -> Warehouse:
    warehouse = warehouse_in(folder)
    where = {"target": "local", "lab": "L06", "run_id": "run-1"}
    warehouse.publish("requests", request_rows(up, load, result), **where)
    warehouse.publish("load_stages", stage_rows(up, load, result), **where)
    return warehouse


def test_what_a_trace_asked_for_is_what_the_warehouse_expects_and_what_it_shares_is_found(
    engine: Server, tmp_path: Path
) -> None:
    up, load = plan_of(replay("mooncake", "synthetic-mooncake.jsonl"), engine.base_url)
    before = engine.metrics()["vllm:prefix_cache_hits_total"]
    warehouse = published(tmp_path, up, load, run(load, tmp_path / "load"))
    found = engine.metrics()["vllm:prefix_cache_hits_total"] - before
    [requests] = warehouse.query(
        """
        SELECT count(*) AS n, count(DISTINCT expected_input_tokens) AS lengths, bool_and(valid) AS valid,
               bool_and(input_tokens = expected_input_tokens AND output_tokens = expected_output_tokens) AS exact
        FROM requests
        """
    )
    assert load.trace is not None
    assert (requests["valid"], requests["exact"]) == (True, True) and requests["lengths"] > 20
    [stage] = warehouse.query("SELECT s.*, clipped_requests FROM stage_table AS s JOIN load_stages USING (session_id)")
    assert (stage["profile"], stage["users"], stage["min_requests"], stage["requests"]) == (
        "trace", None, requests["n"], requests["n"],
    )  # fmt: skip
    assert stage["offered_per_s"] == pytest.approx(requests["n"] / 30.0) and stage["load"].startswith("trace, ")
    assert stage["clipped_requests"] == load.trace.clipped
    assert stage["duration_s"] >= 30.0
    # All but the first have the first block in common, which is 512 tokens.
    assert found >= 512 * (requests["n"] - 8)


def test_a_trace_of_another_state_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with SseServer(completion()) as server:
        _, load = plan_of(replay("azure", "synthetic-azure-2023.csv"), server.base_url)
        assert load.trace is not None
        other = load.trace.model_copy(update={"digest": "0"})
        with pytest.raises(LoadError, match="isn't the file that the plan was made for"):
            run(load.model_copy(update={"trace": other}), tmp_path)
        assert server.received == []


def changing(**profile: Any) -> LoadStep:
    fields = {"kind": "rate_profile", "arrivals": "poisson", "max_in_flight": 64, **profile}
    request = {"kind": "http", "path": "/", "timeout_s": 60.0}
    return LoadStep.model_validate(
        {"kind": "load", "name": "wave", "component": "vllm", "profile": fields, "requests": [request]}
    )


RAMP = [{"at_s": 0, "per_s": 0.2}, {"at_s": 30, "per_s": 3.0}]
ON_OFF = [{"at_s": 0, "per_s": 4}, {"at_s": 5, "per_s": 4}, {"at_s": 5, "per_s": 0}, {"at_s": 12, "per_s": 0}]


@pytest.mark.parametrize(
    ("processes", "profile"), [(1, {"points": ON_OFF, "repeat": 3, "arrivals": "even"}), (2, {"points": RAMP})]
)
def test_a_changing_rate_sends_by_its_schedule_whichever_process_sends(
    tmp_path: Path, processes: int, profile: dict[str, Any]
) -> None:
    async def answer(request: Any, reply: Any) -> None:
        await reply.refuse(200, b"there", content_type="text/plain")

    with SseServer(answer) as server:
        up, load = plan_of(changing(**profile), server.base_url.removesuffix("/v1"))
        result = run(load, tmp_path / "load", processes=processes)
    applied = read_plan(tmp_path / "load" / "plan.json")
    (stage,) = result.stages
    due = list(takewhile(lambda at: at < applied.stages[0].hold_wall_s, offsets(applied, applied.stages[0])))
    counted = [r for r in result.requests if r.counted]
    assert [r.scheduled_at - stage.started_at for r in counted] == pytest.approx(due, abs=1e-4)
    assert {(r.outcome, r.in_stage) for r in counted} == {("ok", True)}
    [row] = published(tmp_path, up, load, result).query("SELECT * FROM stage_table")
    step = changing(**profile)
    assert row["offered_per_s"] == step.loads[0] and row["load"] == f"mean {step.loads[0]:.3g}/s"
    assert row["requests"] / row["duration_s"] == pytest.approx(row["offered_per_s"], rel=0.25)
    if processes == 1:
        assert len(counted) == 60, "three times five seconds of four"


def completions_at(points: list[dict[str, float]]) -> LoadStep:
    request = {
        "kind": "completion",
        "input_tokens": 128,
        "output_tokens": 8,
        "temperature": 0.0,
        "prompts": "load-tests/prompts/fixed-128.json",
        "timeout_s": 200.0,
    }
    profile = {"kind": "rate_profile", "points": points, "arrivals": "gamma", "burstiness": 0.5}
    return LoadStep.model_validate({"kind": "load", "name": "wave", "profile": profile, "requests": [request]})


@pytest.mark.parametrize(
    "step",
    [replay("azure", "synthetic-azure-2024.csv", start_s=5.0, duration_s=10.0), completions_at(RAMP)],
    ids=["trace", "rate profile"],
)
def test_a_rehearsal_is_offered_the_same_load(tmp_path: Path, step: LoadStep) -> None:
    with SseServer(completion(ttft_s=0.01)) as server:
        _, load = plan_of(step, server.base_url, PACE.model_copy(update={"time_scale": 10.0}))
        result = run(load, tmp_path / "load")
    world = world_with(tmp_path / "world")
    tickets, (rehearsed,) = Replay(read_plan(tmp_path / "load" / "plan.json"), world, progress=lambda line: None).run()
    start_s = result.stages[0].started_at
    real = [r for r in result.requests if r.counted]
    drawn = [ticket for ticket in tickets if ticket.counted]
    assert [ticket.request_id for ticket in drawn] == [r.request_id for r in real]
    assert [t.scheduled_s - rehearsed.started_s for t in drawn] == pytest.approx(
        [r.scheduled_at - start_s for r in real], abs=1e-3
    )
    assert [t.asked for t in drawn] == [r.asked_tokens for r in real]
    assert {t.outcome for t in drawn} == {"ok"}
    sizes = [(t.input_tokens, t.output_tokens) for t in drawn]
    assert sizes == [(r.input_tokens, r.output_tokens) for r in real]


def test_a_trace_that_is_missing_fails_the_run_before_a_stack_comes_up(tmp_path: Path) -> None:
    catalog = copied_catalog(tmp_path / "catalogue", labs=["L06"])
    spec: dict[str, Any] = yaml.safe_load((catalog / "L06.yaml").read_text(encoding="utf-8"))
    profile = {"kind": "trace", "file": "load-tests/traces/gone.csv", "format": "azure"}
    request = {
        "kind": "traced",
        "max_input_tokens": 512,
        "max_output_tokens": 64,
        "temperature": 0.0,
        "timeout_s": 60.0,
    }
    step = {"kind": "load", "name": "replay", "profile": profile, "requests": [request]}
    (catalog / "L06.yaml").write_text(yaml.safe_dump(spec | {"steps": [step], "findings": []}), encoding="utf-8")
    defs = build_defs(
        target="rehearsal",
        deployment=Deployment(data_dir=tmp_path / "data"),
        resource_overrides={"labs": Labs(target="rehearsal", catalog_dir=str(catalog))},
    )
    job = defs.resolve_implicit_global_asset_job_def()
    with pytest.raises(Failure, match=r"L06: replay: trace: .*gone\.csv can't be read .*load-tests/traces/"):
        job.execute_in_process(partition_key="L06", asset_selection=[AssetKey("deployed_stack")])
    assert Warehouse(data_dir=str(tmp_path / "data")).query("FROM stack_sessions") == []
