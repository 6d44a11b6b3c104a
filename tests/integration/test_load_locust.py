"""Real Locust against a real loopback server: stages, outcomes, distribution, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

import resources.load_locust
from lab_pipelines.deployment import REPO_ROOT
from resources.load_generator import LoadError
from resources.load_locust import LocustLoadGenerator
from tests.support.locust_runs import MARKER, OUTPUT_TOKENS, completions, marked, plan, run, stage
from tests.support.sse_server import Received, Reply, SseServer, completion, event, text

pytestmark = pytest.mark.alone


def test_a_ramp_holds_its_stages_and_records_every_request(tmp_path: Path) -> None:
    lines: list[str] = []
    with SseServer(completion(ttft_s=0.01, itl_s=0.005)) as server:
        result = run(plan(server.base_url, stage(0, 1, hold_s=1.2), stage(1, 3, min_requests=12)), tmp_path, lines)

    first, second = result.stages
    assert (first.stage, first.users, second.stage, second.users) == (0, 1, 1, 3)
    assert first.ended_at - first.started_at >= 1.2
    assert second.started_at == first.ended_at
    assert all(record.client_cpu_share > 0 for record in result.stages)
    for record, at_least in ((first, 3), (second, 12)):
        within = [r for r in result.requests if r.stage == record.stage and r.in_stage]
        assert len(within) >= at_least
        assert all(record.started_at - 1e-5 <= r.scheduled_at + r.sent_offset_s <= record.ended_at for r in within)

    whole = [r for r in result.requests if r.outcome == "ok"]
    assert {r.outcome for r in result.requests} <= {"ok", "cut"}
    # A request that was cut while it was being sent may not have reached the server.
    assert len(whole) <= len(server.received) <= len(result.requests)
    assert all((r.input_tokens, r.output_tokens, r.http_status) == (512, OUTPUT_TOKENS, 200) for r in whole)
    assert all(len(r.event_offsets_s) == OUTPUT_TOKENS for r in whole)
    assert all(r.event_offsets_s == sorted(r.event_offsets_s) for r in whole)
    assert all(0 < r.server_ttft_s <= r.event_offsets_s[0] <= r.finished_offset_s for r in whole)
    assert all(r.receive_lag_p99_s >= 0 for r in whole)
    assert len({r.request_id for r in result.requests}) == len(result.requests)
    assert {r.user_index for r in result.requests} == {0, 1, 2}
    assert {r.user_index for r in result.requests if r.stage == 0} == {0}

    for user in range(3):  # a closed loop: free when the last answer ended, not before, not an age after
        own = [r for r in result.requests if r.user_index == user]
        ends = [r.scheduled_at + r.finished_offset_s for r in own]
        assert [r.scheduled_at for r in own[1:]] == pytest.approx(ends[:-1], abs=1e-5)

    prompts = [tuple(received.body["prompt"]) for received in server.received]
    assert all(len(prompt) == 512 for prompt in prompts)
    assert len({prompt[:8] for prompt in prompts}) == len(prompts)
    assert server.connections == 3

    ends = [line for line in lines if "ended" in line]
    assert [line.split(" · ")[0] for line in ends] == ["stage 1/2", "stage 2/2"]
    assert "1 user " in ends[0] and "/12 requests" in ends[1] and ends[1].endswith("ended: held")


def test_every_way_to_fail_is_an_outcome_and_the_user_goes_on(tmp_path: Path) -> None:
    async def behave(request: Received, reply: Reply) -> None:
        match request.number % 6:
            case 0:
                await completion()(request, reply)
            case 1:
                await reply.refuse(400, b'{"error": {"message": "too long"}}')
            case 2:
                await reply.head()
                await reply.event(text(" a"))
                await reply.event({"error": {"message": "engine died"}})
                await reply.end()
            case 3:
                await reply.head()
                await reply.event(text(" a"))
                reply.keep_alive = False
            case 4:
                await reply.head()
                await asyncio.sleep(30)
            case 5:
                reply.keep_alive = False

    with SseServer(behave) as server:
        load = plan(server.base_url, stage(0, 1, min_requests=7, max_s=60), shapes=[completions(timeout_wall_s=3.0)])
        result = run(load, tmp_path)

    outcomes = [r.outcome for r in result.requests][:7]
    assert outcomes == ["ok", "http_error", "stream_error", "stream_error", "timeout", "connection_error", "ok"]
    errors = [r.error for r in result.requests][:6]
    assert errors[0] is None
    assert errors[1] == "too long"
    assert errors[2] == "the stream carried an error: engine died"
    assert "closed the connection" in (errors[3] or "")
    assert "3 s" in (errors[4] or "")


def test_a_dead_server_is_not_hammered(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        result = run(plan(base_url, stage(0, 2, hold_s=2.0, min_requests=1)), tmp_path)
    assert {r.outcome for r in result.requests} <= {"connection_error", "cut"}
    # Pauses of 0.1, 0.2, 0.4, 0.8, 1.6 s: at most five attempts of each user fit into the two seconds.
    assert 2 <= len(result.requests) <= 2 * 6
    for user in (0, 1):
        starts = [r.scheduled_at for r in result.requests if r.user_index == user]
        pauses = [later - earlier for earlier, later in pairwise(starts)]
        assert all(pause >= 0.1 * 2**n for n, pause in enumerate(pauses))


def test_at_the_end_running_requests_are_cut_with_what_had_arrived(tmp_path: Path) -> None:
    async def behave(request: Received, reply: Reply) -> None:
        await reply.stamped_head()
        while True:
            await reply.body(b": sent_ns=1\n" + event(text(" a")))
            await asyncio.sleep(0.01)

    lines: list[str] = []
    with SseServer(behave) as server:
        result = run(plan(server.base_url, stage(0, 4, min_requests=1, max_s=1.5)), tmp_path, lines)
    assert [(r.outcome, r.in_stage, r.stage) for r in result.requests] == [("cut", False, 0)] * 4
    assert all(len(r.event_offsets_s) > 1 and r.output_tokens is None for r in result.requests)
    assert lines[-1].endswith("ended: longest hold")


def test_fewer_users_in_a_later_stage_are_fewer_requests_at_once(tmp_path: Path) -> None:
    with SseServer(completion(itl_s=0.005)) as server:
        result = run(plan(server.base_url, stage(0, 3), stage(1, 1)), tmp_path)
    assert len({r.user_index for r in result.requests if r.stage == 0}) == 3
    left = {r.user_index for r in result.requests if r.stage == 1 and r.in_stage}
    assert len(left) == 1


def test_two_workers_share_the_users_and_their_records_are_merged(tmp_path: Path) -> None:
    with SseServer(completion(itl_s=0.005)) as server:
        load = plan(server.base_url, stage(0, 2, min_requests=6), stage(1, 5, min_requests=25))
        result = run(load, tmp_path, processes=2)

    assert [s.users for s in result.stages] == [2, 5]
    assert all(s.client_cpu_share is not None and s.client_cpu_share > 0 for s in result.stages)
    assert {r.worker for r in result.requests} == {"worker-0", "worker-1"}
    assert {r.user_index for r in result.requests if r.in_stage and r.stage == 0} == {0, 1}
    assert len({r.user_index for r in result.requests}) == 5
    assert {r.user_index % 2 for r in result.requests if r.worker == "worker-1"} == {1}
    for number, at_least in ((0, 6), (1, 25)):
        assert sum(r.in_stage and r.stage == number for r in result.requests) >= at_least
    assert len({r.request_id for r in result.requests}) == len(result.requests)
    assert Counter(r.outcome for r in result.requests).keys() <= {"ok", "cut"}
    prompts = {tuple(received.body["prompt"][:8]) for received in server.received}
    assert len(prompts) == len(server.received)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_leaves_no_process_behind(tmp_path: Path, processes: int) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(line: str) -> None:
        assert len(marked(tmp_path)) >= processes
        raise Interrupted

    with SseServer(completion(itl_s=0.005)) as server:
        load = plan(server.base_url, stage(0, 2), stage(1, 2, hold_s=60))
        with pytest.raises(Interrupted):
            LocustLoadGenerator(processes=processes).run(
                load, workdir=tmp_path, environ={MARKER: str(tmp_path)}, progress=interrupt
            )
        assert marked(tmp_path) == []


@pytest.mark.slow
def test_a_lost_worker_fails_the_load(tmp_path: Path) -> None:
    """With one worker less the load isn't what the plan says, whatever Locust makes of the others."""

    def lose_one(line: str) -> None:
        if "stage 1/2" in line and "ended" in line:
            group = marked(tmp_path)
            workers = [process for process in group if process.ppid() in {other.pid for other in group}]
            workers[0].kill()

    with (
        SseServer(completion(itl_s=0.005)) as server,
        pytest.raises(LoadError, match="Locust ended with code 3") as error,
    ):
        LocustLoadGenerator(processes=2).run(
            plan(server.base_url, stage(0, 2), stage(1, 2, hold_s=60, max_s=60)),
            workdir=tmp_path,
            environ={MARKER: str(tmp_path)},
            progress=lose_one,
        )
    assert "1 of 2 workers are left" in str(error.value)
    assert marked(tmp_path) == []


def test_a_load_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.load_locust, "STARTUP_S", -57.0)
    with SseServer(completion()) as server, pytest.raises(LoadError, match="did not end within 3 s"):
        run(plan(server.base_url, stage(0, 1, hold_s=60)), tmp_path)
    assert marked(tmp_path) == []


@pytest.mark.slow
def test_locust_gives_up_by_itself_when_whoever_started_it_was_killed(tmp_path: Path) -> None:
    """Its next progress line finds no reader; the reaper would only find it at the next run."""
    script = (
        "import sys; from pathlib import Path\n"
        "from resources.load_generator import LoadPlan; from resources.load_locust import LocustLoadGenerator\n"
        "plan = LoadPlan.model_validate_json(sys.stdin.read())\n"
        f"LocustLoadGenerator().run(plan, workdir=Path({str(tmp_path)!r}), environ={{{MARKER!r}: {str(tmp_path)!r}}},"
        " progress=lambda line: print(line, flush=True))\n"
    )
    with SseServer(completion(itl_s=0.005)) as server:
        load = plan(server.base_url, stage(0, 1), stage(1, 1, hold_s=120, max_s=120))
        starter = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPO_ROOT
        )
        assert starter.stdin and starter.stdout
        starter.stdin.write(load.model_dump_json())
        starter.stdin.close()
        assert "stage 1/2" in starter.stdout.readline()
        left = marked(tmp_path)
        assert left
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait(10)
        starter.stdout.close()
        _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []


def test_prompts_of_another_length_are_refused_with_the_remedy(tmp_path: Path) -> None:
    shape = completions().model_copy(update={"input_tokens": 100})
    with pytest.raises(LoadError, match=r"has 512 tokens, but the plan's input_tokens is 100; name a fixture") as error:
        run(plan("http://127.0.0.1:9/v1", stage(0, 1), shapes=[shape]), tmp_path)
    assert "Traceback" not in str(error.value)
    assert str(tmp_path / "locust.log") in str(error.value)


def test_records_of_another_load_are_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "local.requests.ndjson").write_text(json.dumps({}))
    with pytest.raises(LoadError, match=r"holds the records of another load \(local\.requests\.ndjson\)"):
        run(plan("http://127.0.0.1:9/v1", stage(0, 1)), tmp_path)


def test_by_hand_a_folder_that_isn_t_there_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan("http://127.0.0.1:9/v1", stage(0, 1)).model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "locust", "-f", str(resources.load_locust.LOCUSTFILE), "--headless"]
    done = subprocess.run(
        [*command, "--plan", str(path), "--records", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"--records {tmp_path / 'nowhere'} can't be written (No such file or directory); give an empty folder"
    )


def test_an_error_in_a_user_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user class that is broken must not look like a server without load."""
    broken = tmp_path / "code"
    broken.mkdir()
    source = resources.load_locust.LOCUSTFILE
    (broken / "streaming_load").symlink_to(source.parent / "streaming_load")
    code = source.read_text(encoding="utf-8").replace("recorder.wait_for_room()", "recorder.no_such_method()")
    (broken / "locustfile.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(resources.load_locust, "LOCUSTFILE", broken / "locustfile.py")
    with SseServer(completion()) as server, pytest.raises(LoadError, match="Locust ended with code 3") as error:
        run(plan(server.base_url, stage(0, 1, max_s=1.0)), tmp_path / "work")
    assert "no_such_method" in str(error.value)
