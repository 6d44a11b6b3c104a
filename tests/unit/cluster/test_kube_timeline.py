"""A cold start in a cluster, from what nodes, pods, events and logs say of it."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import kube_timeline
from resources.kube_timeline import LogLine, json_lines, log_lines, milestones, phases

REQUESTED = datetime(2026, 3, 14, 9, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return REQUESTED + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return at(seconds).isoformat().replace("+00:00", "Z")


def a_pod(*, scheduled: float, started: float | None, ready: float | None) -> dict[str, Any]:
    conditions = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(scheduled)}]
    if ready is not None:
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": stamp(ready)})
    state = {"running": {"startedAt": stamp(started)}} if started is not None else {"waiting": {}}
    return {
        "metadata": {"name": "vllm-0", "uid": "u1"},
        "spec": {"containers": [{"name": "vllm"}, {"name": "sidecar"}], "nodeName": "t4-0"},
        "status": {"conditions": conditions, "containerStatuses": [{"name": "vllm", "state": state}]},
    }


def a_node(*, created: float, ready: float) -> dict[str, Any]:
    return {
        "metadata": {"name": "t4-0", "creationTimestamp": stamp(created)},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": stamp(ready)}]},
    }


def pulled(seconds: float, *, path: str = "spec.containers{vllm}", uid: str = "u1") -> dict[str, Any]:
    return {"reason": "Pulled", "lastTimestamp": stamp(seconds), "involvedObject": {"uid": uid, "fieldPath": path}}


VLLM_LOG = [
    LogLine(at(405), "INFO 03-14 09:06:45 [gpu_model_runner.py:3551] Starting to load model …"),
    LogLine(at(480), "INFO [gpu_model_runner.py:3600] Model loading took 7.1246 GiB memory and 61.1 seconds"),
]


def test_a_new_node_has_every_phase_and_no_second_is_lost_between_them() -> None:
    pod, node = a_pod(scheduled=260, started=400, ready=560), a_node(created=200, ready=230)
    reached = milestones(pod, [pulled(390)], node, VLLM_LOG, requested_at=REQUESTED, scaled_at=at(180))

    assert [(one.name, (one.at - REQUESTED).total_seconds()) for one in reached] == [
        ("requested", 0), ("scaled_out", 180), ("node_created", 200), ("node_ready", 230), ("scheduled", 260),
        ("image_pulled", 390), ("started", 400), ("model_loaded", 480), ("ready", 560),
    ]  # fmt: skip
    took = {one.name: one.duration_s for one in phases(reached, VLLM_LOG)}
    assert took == {
        "node_ready": 230.0, "driver_ready": 30.0, "image_pulled": 140.0, "model_loaded": 80.0, "engine_ready": 80.0
    }  # fmt: skip


def test_a_node_that_was_there_costs_no_phase_of_its_own() -> None:
    pod, node = a_pod(scheduled=2, started=12, ready=90), a_node(created=-9000, ready=-8900)
    reached = milestones(pod, [pulled(10)], node, [], requested_at=REQUESTED, scaled_at=None)

    assert [one.name for one in phases(reached, [])] == ["image_pulled", "engine_ready"]
    assert sum(one.duration_s for one in phases(reached, [])) == 90.0


def test_what_nobody_stamped_belongs_to_the_phase_that_follows() -> None:
    reached = milestones(
        a_pod(scheduled=2, started=None, ready=90), [], None, [], requested_at=REQUESTED, scaled_at=None
    )
    assert [(one.name, one.duration_s) for one in phases(reached, [])] == [("engine_ready", 90.0)]


def test_an_event_of_another_container_or_pod_is_not_this_ones_image() -> None:
    events = [pulled(5, path="spec.initContainers{wait}"), pulled(6, uid="u2"), pulled(40)]
    pod = a_pod(scheduled=2, started=41, ready=90)
    reached = milestones(pod, events, None, [], requested_at=REQUESTED, scaled_at=None)
    assert next(one.at for one in reached if one.name == "image_pulled") == at(40)


def test_a_phase_that_the_modelled_server_played_has_its_own_logs_seconds() -> None:
    line = (
        '{"event": "cold_start", "phase": "model_loaded", "duration_s": 106.5, '
        f'"started_at": {at(12).timestamp()}, "ended_at": {at(12.3).timestamp()}}}'
    )
    log = [LogLine(at(12.3), line), LogLine(at(12.4), 'not JSON, but it says "cold_start"')]
    pod = a_pod(scheduled=2, started=12, ready=13)
    reached = milestones(pod, [], None, log, requested_at=REQUESTED, scaled_at=None)
    took = {one.name: one.duration_s for one in phases(reached, log)}
    assert took == {"image_pulled": 12.0, "model_loaded": 106.5, "engine_ready": pytest.approx(0.7)}


@given(st.lists(st.one_of(st.none(), st.floats(-100, 1000)), min_size=6, max_size=6))
def test_milestones_never_run_back_and_phases_add_up_to_readiness(stamps: list[float | None]) -> None:
    created, node_ready, scheduled, image, started, ready = stamps
    pod = a_pod(scheduled=scheduled or 0, started=started, ready=ready)
    node = a_node(created=created or 0, ready=node_ready or 0)
    events = [] if image is None else [pulled(image)]
    reached = milestones(pod, events, node, [], requested_at=REQUESTED, scaled_at=None)

    times = [one.at for one in reached]
    assert times == sorted(times) and times[0] == REQUESTED
    passed = phases(reached, [])
    for one, following in itertools.pairwise(passed):
        assert one.ended_at == following.started_at
    assert all(one.duration_s >= 0 for one in passed)
    if ready is not None:
        total = sum(one.duration_s for one in passed)
        assert total == pytest.approx((times[-1] - REQUESTED).total_seconds())


def test_a_log_line_without_a_stamp_is_left_out_and_nanoseconds_are_read() -> None:
    text = '2026-03-14T09:00:01.123456789Z {"event": "serving"}\nno stamp here\n2026-03-14T09:00:02Z second'
    lines = log_lines(text)
    assert [line.text for line in lines] == ['{"event": "serving"}', "second"]
    assert lines[0].at == REQUESTED + timedelta(seconds=1, microseconds=123456)


def test_only_json_objects_since_the_session_began_are_a_components_lines() -> None:
    lines = [
        LogLine(at(-1), '{"event": "former"}'), LogLine(at(3), '{"event": "later"}'),
        LogLine(at(2), f'{{"event": "own time", "ts": {at(1).timestamp()}}}'), LogLine(at(2), "[1]"),
        LogLine(at(2), "x"),
    ]  # fmt: skip
    found = json_lines(lines, since=REQUESTED)
    assert [(one["event"], one["ts"]) for one in found] == [
        ("own time", at(1).timestamp()), ("later", at(3).timestamp())
    ]  # fmt: skip
    assert found[1]["line"] == '{"event": "later"}'


def test_a_pod_that_is_not_ready_comes_before_every_ready_one() -> None:
    assert kube_timeline.ready_at(a_pod(scheduled=1, started=None, ready=None)) < at(-1e6)
