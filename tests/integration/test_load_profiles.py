"""Bursts, rates, mixes and plain GETs through the real Locust: all that was due is sent, or said to be missing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from streaming_load.plan import read_plan
from streaming_load.schedule import offsets

import resources.load_locust
from resources.load_generator import HttpShape, LoadError, LoadPlan, RequestRecord, StagePlan
from tests.support.locust_runs import completions, plan, run, stage
from tests.support.sse_server import Received, Reply, SseServer, completion

pytestmark = pytest.mark.alone


def rate(*per_s: float, hold_s: float = 1.0, max_s: float = 20.0) -> list[StagePlan]:
    return [
        StagePlan(stage=n, users=None, per_wall_s=r, hold_wall_s=hold_s, min_requests=1, max_hold_wall_s=max_s)
        for n, r in enumerate(per_s)
    ]


def get(path: str, expect: int = 200, weight: float = 1.0) -> HttpShape:
    return HttpShape(weight=weight, path=path, expect=expect, timeout_wall_s=20.0)


def gets(base_url: str, stages: list[StagePlan], *shapes: HttpShape, **changes: Any) -> LoadPlan:
    fields: dict[str, Any] = {"profile": "rate", "max_in_flight": 64, "model": None, "shapes": shapes or (get("/"),)}
    return plan(base_url.removesuffix("/v1"), *stages, **{**fields, **changes})


async def answer(request: Received, reply: Reply) -> None:
    """The status that the path asks for: /status/503."""
    status = int(request.path.rpartition("/")[2] or 200)
    await reply.refuse(status, b"said and done", content_type="text/plain")


def ended_at(record: RequestRecord) -> float:
    return record.scheduled_at + record.finished_offset_s


def test_a_burst_is_due_at_one_moment_and_ends_with_its_last_request(tmp_path: Path) -> None:
    lines: list[str] = []
    with SseServer(completion(ttft_s=0.05, itl_s=0.005)) as server:
        load = plan(server.base_url, stage(0, 24, hold_s=0.0, min_requests=24), profile="burst", max_in_flight=24)
        result = run(load, tmp_path, lines)
        assert (len(server.received), server.connections) == (24, 24)
    (due,) = {r.scheduled_at for r in result.requests}
    assert due == pytest.approx(result.stages[0].started_at, abs=1e-5)
    assert [r.outcome for r in result.requests] == ["ok"] * 24
    assert {r.user_index for r in result.requests} == set(range(24))
    assert all(r.in_stage and r.counted and 0 <= r.sent_offset_s < r.event_offsets_s[0] for r in result.requests)
    assert max(map(ended_at, result.requests)) <= result.stages[0].ended_at
    assert "burst of 24 · 24/24 requests" in lines[-1] and lines[-1].endswith("ended: held")


@pytest.mark.parametrize("max_in_flight", [512, 4])
def test_a_frozen_server_is_seen_by_every_request_that_was_due_meanwhile(tmp_path: Path, max_in_flight: int) -> None:
    """The trap of a closed loop: it stops asking while it waits, and most of the freeze leaves no trace."""
    per_s, frozen_s = 40.0, 1.5
    thaw: list[float] = []

    async def freeze(request: Received, reply: Reply) -> None:
        if request.number == 20:
            thaw.append(time.time() + frozen_s)
        if thaw:
            await asyncio.sleep(thaw[0] - time.time())
        await answer(request, reply)

    with SseServer(freeze) as server:
        result = run(gets(server.base_url, rate(per_s, hold_s=2.5), max_in_flight=max_in_flight), tmp_path)

    counted = [r for r in result.requests if r.counted]
    assert len(counted) == 2.5 * per_s
    assert {(r.outcome, r.in_stage) for r in counted} == {("ok", True)}
    first = counted[0].scheduled_at
    assert [r.scheduled_at - first for r in counted] == pytest.approx(
        [n / per_s for n in range(len(counted))], abs=1e-4
    )
    due = [r for r in counted if thaw[0] - frozen_s < r.scheduled_at < thaw[0]]
    assert len(due) == pytest.approx(frozen_s * per_s, abs=1)
    assert all(ended_at(r) >= thaw[0] - 0.01 for r in due)
    late = [r for r in due if r.sent_offset_s > 0.02]
    if max_in_flight == 4:  # the others had to wait for a place, and their latency tells
        assert len(late) >= len(due) - 5
        assert all(r.finished_offset_s >= r.sent_offset_s for r in late)
        # Waiting for a place is the server's doing: of it the client's own lateness has nothing.
        assert max(r.sent_offset_s for r in late) > 0.5
        assert sorted(r.client_lag_s for r in late)[len(late) // 2] < 0.1


def test_at_the_longest_hold_what_is_open_or_still_waits_is_cut_and_recorded(tmp_path: Path) -> None:
    async def never(request: Received, reply: Reply) -> None:
        await asyncio.sleep(60)

    with SseServer(never) as server:
        result = run(gets(server.base_url, rate(20.0, hold_s=0.5, max_s=1.0), max_in_flight=3), tmp_path)
        assert len(server.received) == 3
    (only,) = result.stages
    length_s = only.ended_at - only.started_at
    assert 20 * length_s - 2 <= len(result.requests) <= 20 * (length_s + 5), "what was due, and none before its time"
    assert {(r.outcome, r.in_stage) for r in result.requests} == {("cut", False)}
    assert sum(r.counted for r in result.requests) == 10
    waited = [r for r in result.requests if r.error == "the load ended before it was sent"]
    assert len(waited) == len(result.requests) - 3
    assert all(ended_at(r) >= only.ended_at - 0.01 for r in waited)
    # What had no place until the load ended was not kept waiting by the client.
    assert all(r.client_lag_s is None or r.client_lag_s < 0.1 for r in waited)


@pytest.mark.parametrize("processes", [1, 2])
def test_gets_of_several_shapes_follow_the_schedule_whichever_process_sends_them(
    tmp_path: Path, processes: int
) -> None:
    shapes = get("/status/200", weight=9), get("/status/503", expect=503, weight=1)
    with SseServer(answer) as server:
        load = gets(server.base_url, rate(20.0, 60.0), *shapes, arrivals="poisson")
        result = run(load, tmp_path, processes=processes)
        paths = Counter(received.path for received in server.received)

    sent = [r for r in result.requests if r.outcome != "cut"]
    assert {(r.outcome, r.http_status, r.shape) for r in sent} == {("ok", 200, 0), ("ok", 503, 1)}
    assert paths.keys() == {"/status/200", "/status/503"}
    assert len({r.request_id for r in result.requests}) == len(result.requests)
    assert {r.worker for r in result.requests} == ({"local"} if processes == 1 else {"worker-0", "worker-1"})
    assert all(r.user_index is None and r.output_tokens is None and not r.event_offsets_s for r in sent)
    first, second = result.stages
    assert second.started_at == first.ended_at
    applied = read_plan(tmp_path / "plan.json")
    for one, planned in zip(result.stages, applied.stages, strict=True):
        due = list(takewhile(lambda at: at < 1.0, offsets(applied, planned)))
        counted = [r for r in sent if r.stage == one.stage and r.counted]
        assert [r.scheduled_at - one.started_at for r in counted] == pytest.approx(due, abs=1e-4)
        assert abs(sum(r.shape for r in counted) - len(due) / 10) <= 2


def test_two_runs_of_a_step_are_offered_the_same_load(tmp_path: Path) -> None:
    def offered(folder: str, run_id: str) -> list[tuple[str, float, int]]:
        with SseServer(answer) as server:
            load = gets(server.base_url, rate(30.0, hold_s=0.5), get("/a/200"), get("/b/200"), arrivals="poisson")
            result = run(load.model_copy(update={"run_id": run_id}), tmp_path / folder)
        start = result.stages[0].started_at
        return [(r.request_id, round(r.scheduled_at - start, 4), r.shape) for r in result.requests if r.counted]

    first, second = offered("a", "run-1"), offered("b", "run-2")
    assert [(i, s) for i, _, s in first] == [(i, s) for i, _, s in second]
    assert [at for _, at, _ in first] == pytest.approx([at for _, at, _ in second], abs=1e-3)


def test_users_in_a_closed_loop_mix_long_and_short_prompts(tmp_path: Path) -> None:
    with SseServer(completion()) as server:
        shapes = [completions(512, 8, weight=1.0), completions(32, 2, weight=3.0)]
        load = plan(server.base_url, stage(0, 3, hold_s=0.3, min_requests=60), profile="constant", shapes=shapes)
        result = run(load, tmp_path)
        prompts = [tuple(received.body["prompt"]) for received in server.received]
    done = [r for r in result.requests if r.outcome == "ok"]
    assert {(r.shape, r.input_tokens, r.output_tokens) for r in done} == {(0, 512, 8), (1, 32, 2)}
    assert len(set(prompts)) == len(prompts)
    for user in range(3):
        own = [r.shape for r in done if r.user_index == user]
        assert len(own) > 10
        assert abs(own.count(1) - 0.75 * len(own)) < 4
    together = [r.shape for r in done if int(r.request_id.rpartition("-")[2]) == 0]
    assert set(together) == {0, 1}, "users don't all begin with the same shape"


def test_users_in_a_closed_loop_send_gets(tmp_path: Path) -> None:
    with SseServer(answer) as server:
        shapes = get("/status/200"), get("/status/500", expect=500), get("/status/404")
        load = gets(server.base_url, [stage(0, 2, hold_s=0.8)], *shapes, profile="ramp", max_in_flight=None)
        result = run(load, tmp_path)
        assert server.connections == 2
    by_shape = {r.shape: (r.outcome, r.http_status, r.error) for r in result.requests if r.outcome != "cut"}
    assert by_shape == {0: ("ok", 200, None), 1: ("ok", 500, None), 2: ("http_error", 404, "said and done")}
    # After an answer of another status than it asked for a user pauses for 0.1 s.
    length_s = result.stages[0].ended_at - result.stages[0].started_at
    assert sum(r.shape == 2 for r in result.requests) <= 2 * (length_s / 0.1 + 1)


def test_an_error_in_a_request_of_an_open_loop_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resources.load_locust.LOCUSTFILE.parent
    broken = tmp_path / "code"
    (broken / "streaming_load").mkdir(parents=True)
    for path in [source / "locustfile.py", *(source / "streaming_load").glob("*.py")]:
        code = path.read_text(encoding="utf-8").replace("connection.perform(exchange)", "connection.no_such_method()")
        (broken / path.relative_to(source)).write_text(code, encoding="utf-8")
    monkeypatch.setattr(resources.load_locust, "LOCUSTFILE", broken / "locustfile.py")
    with SseServer(answer) as server, pytest.raises(LoadError, match="Locust ended with code 3") as error:
        run(gets(server.base_url, rate(20.0, hold_s=0.2, max_s=0.5)), tmp_path / "work")
    assert "no_such_method" in str(error.value)
