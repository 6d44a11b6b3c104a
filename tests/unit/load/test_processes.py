"""What a load process told of itself: how late its event loop was, and in which stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resources.load_processes import Probe, event_loop_lag, read_process


def process(folder: Path, *late_s: list[float], probe_s: float = 0.04) -> Path:
    """A process's file whose lines bring so many late looks each, one line after the other from second 100 on."""
    lines, at = [], 100.0
    for some in late_s:
        begun, at = at, at + sum(probe_s + late for late in some)
        lines.append({"at": at, "cpu_s": 1.0, "probed_from": begun, "probe_s": probe_s, "late_s": some, "ended": False})
    lines[-1]["ended"] = True
    path = folder / "local.process.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_looks_that_a_late_one_kept_from_being_due_are_told_with_what_was_left_of_the_delay(tmp_path: Path) -> None:
    probes = read_process(process(tmp_path, [0.0, 0.1], [0.001])).probes
    assert [probe.due for probe in probes] == pytest.approx([100.04, 100.08, 100.12, 100.16, 100.22])
    assert [probe.late_s for probe in probes] == pytest.approx([0.0, 0.1, 0.06, 0.02, 0.001])


def test_a_stop_of_a_third_of_a_second_in_ten_is_the_99th_percentile_and_not_one_look_of_250(tmp_path: Path) -> None:
    looks = [0.0] * 121 + [0.3] + [0.0] * 121
    lag = event_loop_lag(read_process(process(tmp_path, looks)).probes, 100.0, 110.1)
    assert lag is not None
    assert lag.probes == pytest.approx(250, abs=2)
    # Of 250 looks the second and third latest: those due 40 and 80 ms after the first one.
    assert 0.2 < lag.p99_s < 0.27


def test_a_stop_over_a_stages_edge_counts_in_both_by_when_a_look_was_due(tmp_path: Path) -> None:
    probes = read_process(process(tmp_path, [0.0] * 9 + [1.0] + [0.0] * 10)).probes
    edge = 100.9
    before, after = event_loop_lag(probes, 100.0, edge), event_loop_lag(probes, edge, 102.0)
    assert before is not None and before.p99_s == pytest.approx(1.0)
    assert after is not None and after.p99_s == pytest.approx(1.0 - 0.52, abs=0.021)


def test_without_a_look_nothing_is_known() -> None:
    assert event_loop_lag([], 0.0, 1.0) is None
    assert event_loop_lag([Probe(5.0, 0.1)], 0.0, 5.0) is None
