"""Each quantity of each row of rows.yaml, measured and modelled.

Doesn't belong here: the loads themselves (simulate.py), tables and pictures (__main__.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from benchmarks.calibration.simulate import Seen, in_turn, poisson_arrivals, sent_at
from lab_pipelines.engine.roofline import Batch, StepCost
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import Model

ROWS = Path(__file__).parent / "rows.yaml"
SEEDS = (1, 2, 3)
"""Of the arrival times; what is compared is the mean over them."""
CONTEXT = 8192
"""Longest sequence, where the source doesn't say."""


@dataclass(frozen=True)
class Compared:
    """One quantity of one row. `bound` None: reported, and no more."""

    row: str
    quantity: str
    measured: float
    modelled: float
    unit: str
    bound: float | None = None
    load: float | None = None
    """Requests per second, of a sweep."""

    @property
    def error(self) -> float:
        return self.modelled / self.measured - 1

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else abs(self.error) <= self.bound


def read_rows() -> dict[str, Any]:
    """The file."""
    return yaml.safe_load(ROWS.read_text(encoding="utf-8"))


def compare(rows: dict[str, Any]) -> list[Compared]:
    """Every row of the file."""
    return [
        *_poisson(rows["poisson"]),
        *_linear(rows["linear"]),
        *(one for part in rows["alone"] for one in _alone(part)),
        *_offline(rows["offline"]),
        *_closed(rows["closed"]),
    ]


def _poisson(part: dict[str, Any]) -> Iterator[Compared]:
    model, bounds, floor_s = _model(part["model"], part["gpu"]), part["bounds"], part["client_floor_s"]
    sizes = part["input_tokens"], part["output_tokens"]
    for row in part["rows"]:
        per_s = row["per_s"] * part["share_of_rate"]
        draws = [poisson_arrivals(part["requests"], per_s, seed=seed) for seed in SEEDS]
        seen = Seen(*map(fmean, zip(*(sent_at(model, arrivals_s, *sizes) for arrivals_s in draws), strict=True)))
        name = f"{_short(part)}, {row['per_s']}/s, {row['part']}"
        below, knee = row["part"] == "below the knee", row["part"] == "knee"
        speed_bound = bounds["output_tokens_per_s"] if below else None if knee else bounds["saturation"]
        quantities = (
            ("TTFT", row["ttft_ms"], (seen.ttft_s + floor_s) * 1000, "ms", None),
            ("ITL", row["itl_ms"], seen.itl_s * 1000, "ms", bounds["itl"] if below else None),
            ("output", row["output_tokens_per_s"], seen.requests_per_s * sizes[1], "tokens/s", speed_bound),
            (
                "concurrency",
                row["users"],
                seen.users + floor_s * seen.requests_per_s,
                "requests",
                bounds["knee_users"] if knee else None,
            ),
        )
        for quantity, measured, modelled, unit, bound in quantities:
            yield Compared(name, quantity, measured, modelled, unit, bound, row["per_s"])


def _linear(part: dict[str, Any]) -> Iterator[Compared]:
    whole = _model(part["model"], part["gpu"])
    layers = whole.args.model.architecture.layers
    cost = StepCost(whole.hardware, _without_tables(whole.args.model))
    beside_s = layers * whole.hardware.attention_layer_s.value + whole.hardware.host_s.value
    for row in part["rows"]:
        # A step that attends to nothing: -tokens of prefix take back the writing of the KV cache.
        step_s = cost.step_s(Batch(0, 0, row["tokens"], 0.0, -row["tokens"], 0, 0))
        name = f"{_short(part)}, {row['tokens']} tokens in a step"
        yield Compared(name, "linear part", row["ms"], (step_s - beside_s) * 1000, "ms")


def _without_tables(model: Model) -> Model:
    """The layers alone, as if there were one token to embed and to predict."""
    shape = model.architecture.model_copy(update={"vocabulary": 1})
    tables = shape.hidden * (1 if shape.tied_embeddings else 2)
    parameters = model.parameters.model_copy(update={"value": model.body_parameters + tables})
    return model.model_copy(update={"architecture": shape, "parameters": parameters})


def _alone(part: dict[str, Any]) -> Iterator[Compared]:
    cost = _model(part["model"], part["gpu"]).cost
    for row in part["rows"]:
        if "context" in row:
            step_s = cost.step_s(Batch(1, row["context"], 0, 0.0, 0, 1, 1))
            name = f"{_short(part)}, alone, context {row['context']}"
            yield Compared(name, "decode", row["decode_per_s"], 1 / step_s, "tokens/s")
        else:
            n = row["prompt"]
            step_s = cost.step_s(Batch(0, 0, n, n * n / 2, 0, 1, 1))
            name = f"{_short(part)}, a prompt of {n}"
            if "ttft_ms" in row:
                yield Compared(name, "TTFT", row["ttft_ms"], step_s * 1000, "ms")
            else:
                yield Compared(name, "prefill", row["prefill_per_s"], n / step_s, "tokens/s")


def _offline(part: dict[str, Any]) -> Iterator[Compared]:
    model = _model(part["model"], part["gpu"])
    for row in part["rows"]:
        seen = sent_at(model, [0.0] * part["requests"], row["input_tokens"], part["output_tokens"])
        name = f"{_short(part)}, offline, {row['input_tokens']} in"
        yield Compared(name, "requests", row["requests_per_s"], seen.requests_per_s, "requests/s")


def _closed(part: dict[str, Any]) -> Iterator[Compared]:
    for row in part["rows"]:
        model = _model(row["model"], part["gpu"])
        seen = in_turn(model, part["users"], part["requests"], part["input_tokens"], part["output_tokens"])
        said = f", {row['note']}" if "note" in row else ""
        name = f"{_short(part | row)}, {part['users']} at once{said}"
        modelled = seen.requests_per_s * part["output_tokens"]
        yield Compared(name, "output", row["output_tokens_per_s"], modelled, "tokens/s")


def _model(model: str, gpu: str) -> EngineModel:
    arguments = [model, "--no-enable-prefix-caching", "--dtype", "half", "--max-model-len", str(CONTEXT)]
    return EngineModel.of(arguments, gpu)


def _short(part: dict[str, Any]) -> str:
    return f"{part['model'].split('/')[1]} on {part['gpu']}"
