"""What the pipeline takes on top of the load itself, part by part, beside the same work without the pipeline.

Overhead is wall time from the start of the process to its end, minus the stages' durations. The parts come from the
moments that the run has recorded (Dagster's event log, the warehouse's rows), and together they are the whole.
Doesn't belong here: running either of the two (demo.py, bare.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dagster import DagsterEventType, DagsterInstance

from benchmarks.client_lag import USERS, lag_figures
from benchmarks.demo import BenchmarkError, Demo
from benchmarks.figures import Figure
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.deployment import REPO_ROOT
from resources.load_records import read_result

NAME = "overhead"
AT_MOST_S = 25.0
BARE = "bare work"
ASSETS = ("deployed_stack", "load_run", "metrics_snapshot", "cost_attribution", "finops_sheet", "year_in_numbers")


@dataclass(frozen=True)
class Span:
    """From when to when, Unix time in seconds."""

    start: float
    end: float

    @property
    def length_s(self) -> float:
        return self.end - self.start


def figures(demo: Demo, folder: Path) -> list[Figure]:
    """The demo's overhead and its parts, then the bare work's, done in `folder`. Raises `BenchmarkError`."""
    stages = [Span(row["start"], row["end_"]) for row in demo.query(_STAGES)]
    load_s = sum(stage.length_s for stage in stages)
    overhead_s = demo.wall_s - load_s
    parts = demo_parts(Span(demo.started_at, demo.ended_at), steps(demo), phases(demo), stages)
    note = f"pace {demo.pace}: {demo.wall_s:.1f} s, of which {load_s:.1f} s are stages"
    bare = _run_bare(demo, folder)
    return [
        Figure(NAME, "whole", overhead_s, "s", AT_MOST_S if demo.pace == "short" else None, note),
        *[Figure(NAME, f"- {name}", seconds, "s") for name, seconds in parts.items()],
        *_bare_figures(bare, folder, overhead_s=overhead_s),
    ]


def steps(demo: Demo) -> dict[str, Span]:
    """When each step of the run, asset or check, began and ended."""
    began: dict[str, float] = {}
    ended: dict[str, Span] = {}
    kinds = {DagsterEventType.STEP_START, DagsterEventType.STEP_SUCCESS}
    with DagsterInstance.from_config(str(demo.place.home)) as instance:
        for entry in instance.all_logs(demo.run_id, of_type=kinds):
            assert entry.step_key is not None
            if entry.get_dagster_event().is_step_start:
                began[entry.step_key] = entry.timestamp
            else:
                ended[entry.step_key] = Span(began[entry.step_key], entry.timestamp)
    return ended


def phases(demo: Demo) -> dict[str, Span]:
    """When each phase of the cold start began and ended."""
    return {row["name"]: Span(row["start"], row["end_"]) for row in demo.query(_PHASES)}


def demo_parts(
    whole: Span, steps: Mapping[str, Span], phases: Mapping[str, Span], stages: Sequence[Span]
) -> dict[str, float]:
    """Seconds of each part of the overhead; they sum to the whole minus the stages. Pure."""
    deploy, load = steps["deployed_stack"], steps["load_run"]
    first, last = phases["node_ready"], phases["first_token"]
    node = Span(first.start, phases["image_pulled"].end)
    weights = Span(phases["model_loaded"].start, phases["engine_ready"].end)
    parts = {
        "import, plan, start of the run": Span(whole.start, deploy.start).length_s,
        "cold start: lease, reaping": Span(deploy.start, first.start).length_s,
        "cold start: node, driver, image (modelled)": node.length_s,
        "cold start: the server's process": Span(node.end, weights.start).length_s,
        "cold start: weights, graphs (modelled)": weights.length_s,
        "cold start: listening": Span(weights.end, last.start).length_s,
        "cold start: first token": last.length_s,
        "cold start: first scrape, publish": Span(last.end, deploy.end).length_s,
        "load: start of Locust": Span(load.start, stages[0].start).length_s,
        "load: between stages": sum(b.start - a.end for a, b in pairwise(stages)),
        "load: drain, read records, publish": Span(stages[-1].end, load.end).length_s,
        **{name: steps[name].length_s for name in ASSETS if name not in ("deployed_stack", "load_run")},
        "checks": sum(span.length_s for name, span in steps.items() if name not in ASSETS),
        "end of the run": Span(max(span.end for span in steps.values()), whole.end).length_s,
    }
    known = sum(parts.values()) + sum(stage.length_s for stage in stages)
    return {**parts, "between steps": whole.length_s - known}


def _run_bare(demo: Demo, folder: Path) -> dict[str, Any]:
    session = demo.query("SELECT * FROM stack_sessions WHERE state = 'open'")[0]
    gpu = load_prices().sku(session["sku"]).gpu
    assert gpu is not None
    plan = next((demo.place.data_dir / "runs" / demo.run_id).rglob("plan.json"))
    command = [sys.executable, str(REPO_ROOT / "benchmarks" / "bare.py"), "--plan", str(plan), "--gpu", gpu]
    command += ["--time-scale", f"{session['time_scale']:g}"]
    command += ["--cold-start-time-scale", f"{session['cold_start_time_scale']:g}"]
    command += ["--records", str(folder / "bare"), "--", *json.loads(session["engine_args"])]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=REPO_ROOT, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"benchmarks/bare.py ended with code {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def _bare_figures(bare: Mapping[str, Any], folder: Path, *, overhead_s: float) -> list[Figure]:
    stages = [Span(stage["started_at"], stage["ended_at"]) for stage in bare["stages"]]
    load_s = sum(stage.length_s for stage in stages)
    whole_s = bare["ended_at"] - bare["started_at"]
    result = read_result(folder / "bare")
    users = max(stage.users for stage in result.stages if stage.users is not None)
    of_stage = {stage.stage for stage in result.stages if stage.users == min(users, USERS)}
    lags = [
        abs(request.event_offsets_s[0] - request.sent_offset_s - request.server_ttft_s)
        for request in result.requests
        if request.stage in of_stage and request.event_offsets_s and request.server_ttft_s is not None
    ]
    parts = {
        "start of the server": Span(bare["started_at"], bare["server_ready_at"]).length_s,
        "start of Locust": Span(bare["server_ready_at"], stages[0].start).length_s,
        "between stages, drain": Span(stages[0].start, bare["locust_ended_at"]).length_s - load_s,
        "curl": Span(bare["locust_ended_at"], bare["metrics_read_at"]).length_s,
        "end of the server": Span(bare["metrics_read_at"], bare["ended_at"]).length_s,
    }
    return [
        Figure(BARE, "overhead", whole_s - load_s, "s", note=f"{whole_s:.1f} s, of which {load_s:.1f} s are stages"),
        *[Figure(BARE, f"- {name}", seconds, "s") for name, seconds in parts.items()],
        Figure(BARE, "the pipeline's overhead against it", overhead_s / (whole_s - load_s), "times"),
        *[Figure(BARE, lag.name, lag.value, lag.unit, note=lag.note) for lag in lag_figures(BARE, lags, users=users)],
    ]


_STAGES = "SELECT epoch(started_at) AS start, epoch(ended_at) AS end_ FROM load_stages ORDER BY step, stage"
_PHASES = "SELECT name, epoch(started_at) AS start, epoch(ended_at) AS end_ FROM events WHERE kind = 'cold_start'"
