"""Loads for tests: small plans, run by the real Locust, with nothing left behind.

Doesn't belong here: the servers that they are sent to (sse_server.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from resources.load_generator import CompletionShape, LoadPlan, StagePlan
from resources.load_locust import LocustLoadGenerator

MARKER = "LABS_TEST_LOAD_OF"
OUTPUT_TOKENS = 8


def stage(number: int, users: int, *, hold_s: float = 0.5, min_requests: int = 3, max_s: float = 30.0) -> StagePlan:
    return StagePlan(
        stage=number, users=users, hold_wall_s=hold_s, min_requests=min_requests, max_hold_wall_s=max(max_s, hold_s)
    )


def completions(input_tokens: int = 512, output_tokens: int = OUTPUT_TOKENS, **changes: Any) -> CompletionShape:
    fields: dict[str, Any] = {
        "prompts": f"load-tests/prompts/fixed-{input_tokens}.json",
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "temperature": 0.0,
        "timeout_wall_s": 20.0,
    }
    return CompletionShape(**{**fields, **changes})


def plan(base_url: str, *stages: StagePlan, **changes: Any) -> LoadPlan:
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "step": "ramp",
        "base_url": base_url,
        "model": "m",
        "profile": "ramp",
        "shapes": [completions()],
        "stages": list(stages),
    }
    return LoadPlan(**{**fields, **changes})


def marked(workdir: Path) -> list[psutil.Process]:
    """Live processes that a load in `workdir` started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == str(workdir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def run(load: LoadPlan, workdir: Path, lines: list[str] | None = None, *, processes: int = 1) -> Any:
    generator = LocustLoadGenerator(processes=processes)
    said: list[str] = [] if lines is None else lines
    result = generator.run(load, workdir=workdir, environ={MARKER: str(workdir)}, progress=said.append)
    assert marked(workdir) == []
    return result
