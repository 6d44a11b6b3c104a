"""A world's clock, what its Prometheus sees of it, and what its engine says of requests."""

from __future__ import annotations

from pathlib import Path

from lab_pipelines.rehearsal.world import SCRAPE_EVERY_S, VirtualRequest, World
from tests.support.worlds import START_S, completion, replay, users, world_with


def samples(world: World, series: str) -> list[tuple[float, float]]:
    """Time and value of each sample so far of the series that begin with `series`, in order of time."""
    lines = [line.rsplit(" ", 2) for line in world.scrapes.cut().read_text().splitlines() if line.startswith(series)]
    return [(float(at_s), float(value)) for _, value, at_s in lines]


def test_it_is_scraped_as_often_when_nothing_happens(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    assert world.advance(START_S + 60.0) == []
    assert world.now_s == START_S + 60.0
    times = [at_s for at_s, _ in samples(world, "up")]
    assert times == [START_S + number * SCRAPE_EVERY_S for number in range(13)]


def test_no_two_scrapes_bear_the_same_time_and_time_never_runs_backwards(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    replay(world, users(1, 3), completion(128, 16))
    world.scrape()
    world.scrape()
    times = [at_s for at_s, _ in samples(world, "up")]
    assert times == sorted(set(times))


def test_prometheus_counts_the_tokens_that_were_sent(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    walked, tickets, _ = replay(world, users(1, 4), completion(128, 32))
    assert world.engine is not None
    world.scrape()
    counted = samples(world, "vllm:generation_tokens_total")
    assert [value for _, value in counted] == sorted(value for _, value in counted)
    # What was under way when the load ended belongs to a step that the server had begun.
    read = sum(len(walked.event_times(ticket)) for ticket in tickets)
    assert read <= counted[-1][1] <= read + 4


def test_an_engine_that_is_gone_is_down_and_its_series_end(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    world.advance(START_S + 10.0)
    world.take_down()
    world.advance(START_S + 20.0)
    assert [value for _, value in samples(world, "up")][-3:] == [1.0, 0.0, 0.0]
    world.advance(START_S + 30.0)
    assert samples(world, "vllm:num_requests_running") == []


def test_the_gpu_works_while_the_engine_does_and_rests_after(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    replay(world, users(8, hold_s=60.0))
    busy = samples(world, "DCGM_FI_DEV_GPU_UTIL")[-1][1]
    world.advance(world.now_s + 60.0)
    idle = samples(world, "DCGM_FI_DEV_GPU_UTIL")[-1][1]
    assert busy > 90 and idle == 0


def test_a_request_that_ended_leaves_the_server_s_log_line_and_one_that_was_dropped_a_warning(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    assert world.engine is not None
    kept = VirtualRequest(512, 8, arrived_s=START_S, request_id="kept")
    dropped = VirtualRequest(512, 800, arrived_s=START_S, request_id="dropped")
    for request in (kept, dropped):
        world.engine.replica.submit(request)
    assert world.advance(START_S + 60.0) == [kept]
    assert world.abort(dropped, world.ended_s) == 8
    fields = [line.said.log_fields() for line in world.log]
    assert [(line["request_id"], line["level"], line["finished_reason"]) for line in fields] == [
        ("kept", "info", "length"),
        ("dropped", "warning", "abort"),
    ]
    assert fields[0]["e2e_s"] == round(world.log[0].at_s - START_S, 6) > fields[0]["ttft_s"] > 0
    world.abort(dropped, world.ended_s)
    world.scrape()
    told = [value for _, value in samples(world, "vllm:request_success_total")]
    assert sum(told[-5:]) == 2 and len(world.log) == 2
