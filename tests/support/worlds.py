"""Worlds of a rehearsal with an engine that is up, and plans to replay in them, for tests of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from streaming_load.plan import CompletionShape, Plan, Stage

from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.rehearsal.load import AppliedStage, Replay, Ticket
from lab_pipelines.rehearsal.world import World

START_S = 1_773_219_600.0
PHI_3 = ["microsoft/Phi-3-mini-4k-instruct", "--dtype", "half", "--max-model-len", "4096", "--no-enable-prefix-caching"]


def world_with(folder: Path, *arguments: str, gpu: str = "T4", base: list[str] = PHI_3, seed: int = 1) -> World:
    """A world whose engine, `base` with more arguments, answers from `START_S` on."""
    world = World(folder, start_s=START_S, namespace="lab-00", seed=seed)
    world.bring_up("vllm", EngineModel.of([*base, *arguments], gpu))
    return world


def completion(tokens_in: int = 512, tokens_out: int = 64, **changes: Any) -> CompletionShape:
    """A shape of `tokens_in` and `tokens_out` tokens."""
    fields: dict[str, Any] = {"prompts": "load-tests/prompts/fixed-512.json", "temperature": 0.0}
    fields |= {"weight": 1.0, "timeout_wall_s": 600.0, **changes}
    return CompletionShape("completion", input_tokens=tokens_in, output_tokens=tokens_out, **fields)


def users(*counts: int, hold_s: float = 20.0, least: int = 1, longest_s: float = 600.0) -> list[Stage]:
    """Stages of a closed loop, or of a burst."""
    return [Stage(number, count, None, hold_s, least, longest_s) for number, count in enumerate(counts)]


def rates(*per_s: float, hold_s: float = 20.0, least: int = 1, longest_s: float = 600.0) -> list[Stage]:
    """Stages of an open loop."""
    return [Stage(number, None, rate, hold_s, least, longest_s) for number, rate in enumerate(per_s)]


def replay(
    world: World,
    stages: list[Stage],
    *shapes: CompletionShape,
    profile: Literal["ramp", "burst", "rate"] = "ramp",
    max_in_flight: int | None = None,
) -> tuple[Replay, list[Ticket], list[AppliedStage]]:
    """Replay a load to its end."""
    plan = Plan(
        run_id="run-1",
        step="load",
        base_url="rehearsal://x",
        model="m",
        profile=profile,
        arrivals="even",
        max_in_flight=max_in_flight or (None if profile == "ramp" else 512),
        shapes=shapes or (completion(),),
        stages=tuple(stages),
    )
    walked = Replay(plan, world, progress=lambda line: None)
    return walked, *walked.run()
