"""The files of several load processes, put together by time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from resources.load_processes import CpuSample, cpu_share
from resources.load_records import read_result


def request(
    request_id: str, *, scheduled_at: float, sent_offset_s: float = 0.0, finished_offset_s: float, **more: Any
) -> str:
    fields: dict[str, Any] = {
        "request_id": request_id,
        "worker": "w",
        "user_index": 0,
        "shape": 0,
        "counted": True,
        "scheduled_at": scheduled_at,
        "sent_offset_s": sent_offset_s,
        "finished_offset_s": finished_offset_s,
        "event_offsets_s": [],
        "input_tokens": None,
        "output_tokens": None,
        "outcome": "ok",
        "http_status": 200,
        "finish_reason": None,
        "error": None,
        "server_ttft_s": None,
        "receive_lag_p99_s": None,
    }
    return json.dumps({**fields, **more}) + "\n"


def write(folder: Path, *, ended: bool = True) -> None:
    """Two stages, 100-110 and 110-120, applied by two workers that each used half a core."""
    stages = [
        {"stage": 0, "users": 1, "started_at": 100.0, "ended_at": 110.0},
        {"stage": 1, "users": 4, "started_at": 110.0, "ended_at": 120.0},
    ]
    (folder / "stages.ndjson").write_text("".join(json.dumps(stage) + "\n" for stage in stages))
    for worker in ("worker-0", "worker-1"):
        # Both look at their event loop once a second. The first is never late, the second by half a second in the first
        # stage, and by two and a half in the second one: two looks, that would have been due meanwhile, were late, too.
        late = [0.0] * 22 if worker == "worker-0" else [0.0] * 5 + [0.5] + [0.0] * 5 + [2.5] + [0.0] * 7
        samples = [
            {"at": 99.0, "cpu_s": 1.0, "probed_from": 99.0, "probe_s": 1.0, "late_s": [], "ended": False},
            {"at": 121.0, "cpu_s": 12.0, "probed_from": 99.0, "probe_s": 1.0, "late_s": late, "ended": ended},
        ]
        (folder / f"{worker}.process.ndjson").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (folder / "worker-0.requests.ndjson").write_text(
        request("within", scheduled_at=101.0, finished_offset_s=8.0)
        + request("across", scheduled_at=109.0, finished_offset_s=8.0)
        + request("cut", scheduled_at=119.0, finished_offset_s=1.2)
    )
    (folder / "worker-1.requests.ndjson").write_text(
        request("sent later than scheduled", scheduled_at=109.9, sent_offset_s=0.2, finished_offset_s=5.0)
        + request("after the last stage", scheduled_at=120.1, finished_offset_s=0.1)
        + request("rounded to before the first stage", scheduled_at=99.999999, finished_offset_s=1.0)
    )


def test_a_request_belongs_to_the_stage_in_which_it_was_sent_whichever_process_sent_it(tmp_path: Path) -> None:
    write(tmp_path)
    result = read_result(tmp_path)
    assert [(request.request_id, request.stage, request.in_stage) for request in result.requests] == [
        ("rounded to before the first stage", 0, True),
        ("within", 0, True),
        ("across", 0, False),
        ("sent later than scheduled", 1, True),
        ("cut", 1, False),
        ("after the last stage", 1, False),
    ]


def test_an_open_loops_request_belongs_to_the_stage_of_its_schedule_however_late_it_was_sent(tmp_path: Path) -> None:
    write(tmp_path)
    lines = [
        request("late", scheduled_at=109.0, sent_offset_s=3.0, finished_offset_s=3.5, stage=0, counted=True),
        request("extra", scheduled_at=109.5, finished_offset_s=0.1, stage=0, counted=False),
        request("never sent", scheduled_at=119.0, finished_offset_s=1.0, stage=1, counted=True, outcome="cut"),
    ]
    (tmp_path / "worker-0.requests.ndjson").write_text("".join(lines))
    (tmp_path / "worker-1.requests.ndjson").write_text("")
    found = [(r.request_id, r.stage, r.in_stage, r.counted) for r in read_result(tmp_path).requests]
    assert found == [("late", 0, False, True), ("extra", 0, True, False), ("never sent", 1, False, True)]


def test_a_record_of_a_stage_that_was_not_applied_is_refused_by_its_id(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "worker-1.requests.ndjson").write_text(
        request("odd", scheduled_at=111.0, finished_offset_s=1.0, stage=7)
    )
    with pytest.raises(ValueError, match="request odd: stage 7 was not applied"):
        read_result(tmp_path)


def test_a_stages_cpu_share_is_that_of_all_processes(tmp_path: Path) -> None:
    write(tmp_path)
    shares = [stage.client_cpu_share for stage in read_result(tmp_path).stages]
    assert shares == [pytest.approx(1.0), pytest.approx(1.0)]


def test_a_stages_busiest_process_is_told_apart_from_their_sum(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "worker-1.process.ndjson"
    path.write_text(path.read_text().replace('"cpu_s": 12.0', '"cpu_s": 23.0'))
    [first, _] = read_result(tmp_path).stages
    assert (first.busiest_cpu_share, first.client_cpu_share) == (pytest.approx(1.0), pytest.approx(1.5))
    assert first.cpu_samples == 2, "one before the stage and one after it"


def test_a_stages_event_loop_lag_is_that_of_the_process_that_was_latest(tmp_path: Path) -> None:
    write(tmp_path)
    first, second = read_result(tmp_path).stages
    assert (first.event_loop_lag_p99_s, second.event_loop_lag_p99_s) == (0.5, 2.5)
    assert (first.event_loop_probes, second.event_loop_probes) == (10, 9)


def test_a_process_that_did_not_write_its_end_makes_the_records_incomplete(tmp_path: Path) -> None:
    write(tmp_path, ended=False)
    with pytest.raises(ValueError, match=r"worker-0\.process\.ndjson does not end"):
        read_result(tmp_path)


def test_a_record_of_another_shape_is_refused_by_its_id(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "worker-1.requests.ndjson").open("a") as file:
        file.write(request("odd", scheduled_at=111.0, finished_offset_s=1.0).replace('"ok"', '"fine"'))
    with pytest.raises(ValueError, match="request odd"):
        read_result(tmp_path)


def test_cpu_between_two_samples_counts_by_its_part() -> None:
    samples = [CpuSample(0.0, 0.0), CpuSample(10.0, 5.0), CpuSample(20.0, 5.0)]
    assert cpu_share([samples], 8.0, 12.0) == pytest.approx(1.0 / 4.0)
    assert cpu_share([samples], 0.0, 20.0) == pytest.approx(0.25)


def test_cpu_is_unknown_where_a_process_was_not_sampled() -> None:
    samples = [CpuSample(5.0, 0.0), CpuSample(10.0, 5.0)]
    assert cpu_share([samples], 0.0, 8.0) is None
    assert cpu_share([samples], 6.0, 12.0) is None
    assert cpu_share([samples, []], 6.0, 8.0) is None
    assert cpu_share([], 6.0, 8.0) is None
