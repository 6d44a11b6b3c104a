"""The load generator's benchmarks at small numbers: they join what was sent with what was seen. Nothing is timed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import frozen
from benchmarks.rivals import run, served
from benchmarks.rivals_tools import Bare, Level, Ours, Tool
from resources.load_records import read_result

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("tool", [Ours(), Bare()], ids=lambda tool: tool.name)
def test_every_answer_that_a_tool_reports_stands_beside_the_one_that_was_sent(tool: Tool) -> None:
    level = Level(streams=3, waves=2, tokens=8, ttft_s=0.1, itl_s=0.01)
    done = run(tool, level)

    assert len({seen.sent.id for seen in done.seen}) == len(done.seen) >= level.streams
    assert done.events >= len(done.seen) * level.tokens
    for seen in done.seen:
        assert len(seen.gaps_s) == len(seen.sent.gaps_s) == 7
        assert seen.sent.ttft_s >= level.ttft_s
        assert seen.ttft_s > level.ttft_s, "a client that sees an answer before it was sent is joined with another's"
        assert seen.mean_itl_s == pytest.approx(sum(seen.gaps_s) / 7)
    assert done.cpu_s > 0


def test_our_generator_reads_the_stamps_of_the_server_that_it_is_measured_at(tmp_path: Path) -> None:
    level = Level(streams=2, waves=1, tokens=8, ttft_s=0.1, itl_s=0.01)
    with served(level, tmp_path / "sent.ndjson") as server:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        subprocess.run(Ours().command(level, url=url, folder=tmp_path), check=True, capture_output=True)

    whole = [record for record in read_result(tmp_path).requests if record.outcome == "ok"]
    assert len(whole) >= level.streams
    for record in whole:
        assert record.server_ttft_s is not None and record.server_ttft_s >= level.ttft_s
        assert record.first_receive_lag_s is not None and record.receive_lag_p99_s is not None


def test_a_frozen_server_is_seen_by_all_that_was_due_and_by_few_who_wait_for_their_answers() -> None:
    experiment = frozen.Experiment(per_s=20, hold_s=4, freeze_at_s=1, freeze_for_s=2, over_s=0.5)
    ours, true, ideal = frozen.open_loop(experiment)

    assert ours.requests == true.requests == ideal.requests == 80
    assert ours.slow == pytest.approx(true.slow, abs=0.1)
    # Two seconds stood still, and all but the last half second of what was due in them: however slow this machine is.
    assert min(true.slow, ideal.slow) >= 29 / 80

    closed = frozen.closed_loop(experiment)
    assert closed.requests < 80
