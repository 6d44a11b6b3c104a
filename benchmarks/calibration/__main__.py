"""Simulates every row of rows.yaml and prints the model's error beside its bound; writes JSON and a plot.

    python -m benchmarks.calibration

Belongs here: the simulation of each kind of row and the comparison. Doesn't belong here: the constants that follow from
it (lab_pipelines/engine/hardware.yaml), the range that it gives (trust.yaml).
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import vl_convert
import yaml
from rich.console import Console
from rich.table import Table

from lab_pipelines.engine.replica import Replica, Tracked
from lab_pipelines.engine.roofline import Batch
from lab_pipelines.engine.setup import EngineModel

ROWS = Path(__file__).parent / "rows.yaml"
RESULT = Path(__file__).parents[1] / "results" / "calibration.json"
PLOT = RESULT.with_suffix(".svg")
SEED = 1
CONTEXT = 8192


@dataclass(frozen=True)
class Compared:
    """One quantity of one row. `bound` None: reported, and no more."""

    row: str
    quantity: str
    measured: float
    modelled: float
    unit: str
    bound: float | None = None

    @property
    def error(self) -> float:
        return self.modelled / self.measured - 1

    @property
    def met(self) -> bool | None:
        return None if self.bound is None else abs(self.error) <= self.bound


class Seen(NamedTuple):
    """What a simulated client saw: means over its requests. Seconds."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    span_s: float
    """From the first arrival to the last token."""


def compare(rows: dict[str, Any]) -> list[Compared]:
    """Every row of the file."""
    return [
        *_poisson(rows["poisson"], rows["client_floor_s"]),
        *_linear(rows["linear"]),
        *_alone(rows["alone"]),
        *_offline(rows["offline"]),
    ]


def simulate(model: EngineModel, arrivals_s: Sequence[float], input_tokens: int, output_tokens: int) -> Seen:
    """Requests of one shape, each arriving at its time."""
    replica: Replica[Tracked] = Replica(model.engine(), model.cost, start_s=0.0)
    requests = [Tracked(input_tokens, output_tokens, arrived_s=at_s) for at_s in arrivals_s]
    for request in requests:
        replica.submit(request)
    ended: dict[Tracked, float] = {}
    while len(ended) < len(requests):
        for request in replica.advance(math.inf):
            ended[request] = replica.now_s
    n = len(requests)
    first = {request: request.first_token_s or 0.0 for request in requests}
    return Seen(
        ttft_s=sum(first[r] - r.arrived_s for r in requests) / n,
        tpot_s=sum((ended[r] - first[r]) / (output_tokens - 1) for r in requests) / n,
        e2e_s=sum(ended[r] - r.arrived_s for r in requests) / n,
        span_s=max(ended.values()) - arrivals_s[0],
    )


def _poisson(part: dict[str, Any], floor_s: float) -> Iterator[Compared]:
    model, bounds = _model(part), part["bounds"]
    for row in part["rows"]:
        seen = simulate(
            model, poisson_arrivals(part["requests"], row["per_s"]), part["input_tokens"], part["output_tokens"]
        )
        name = f"{part['model'].split('/')[1]} on {part['gpu']}, {row['per_s']}/s, {row['part']}"
        below, knee = row["part"] == "below the knee", row["part"] == "knee"
        tokens_per_s = part["requests"] * part["output_tokens"] / seen.span_s
        users = part["requests"] * (seen.e2e_s + floor_s) / (seen.span_s + floor_s)
        speed_bound = bounds["output_tokens_per_s"] if below else None if knee else bounds["saturation"]
        yield Compared(name, "TPOT", row["tpot_ms"], seen.tpot_s * 1000, "ms", bounds["tpot"] if below else None)
        yield Compared(name, "output", row["output_tokens_per_s"], tokens_per_s, "tokens/s", speed_bound)
        yield Compared(name, "concurrency", row["users"], users, "requests", bounds["knee_users"] if knee else None)


def poisson_arrivals(requests: int, per_s: float) -> list[float]:
    """The same in every run."""
    numbers, at_s, arrivals = random.Random(SEED), 0.0, []
    for _ in range(requests):
        at_s -= math.log(1 - numbers.random()) / per_s
        arrivals.append(at_s)
    return arrivals


def _linear(part: dict[str, Any]) -> Iterator[Compared]:
    model = _model(part)
    for row in part["rows"]:
        # A step that attends to nothing, without the host and the attention's own launches.
        batch = Batch(0, 0, row["tokens"], 0.0, -row["tokens"], 0, 0)
        layers = model.args.model.architecture.layers
        launches_s = layers * model.hardware.attention_layer_s.value + model.hardware.host_s.value
        name = f"{part['model'].split('/')[1]} on {part['gpu']}, {row['tokens']} tokens in a step"
        yield Compared(name, "linear part", row["ms"], (model.cost.step_s(batch) - launches_s) * 1000, "ms")


def _alone(part: dict[str, Any]) -> Iterator[Compared]:
    model = _model(part)
    for row in part["rows"]:
        if "context" in row:
            step_s = model.cost.step_s(Batch(1, row["context"], 0, 0.0, 0, 1, 1))
            name = f"{part['model'].split('/')[1]} on {part['gpu']}, alone, context {row['context']}"
            yield Compared(name, "decode", row["decode_per_s"], 1 / step_s, "tokens/s")
        else:
            n = row["prompt"]
            step_s = model.cost.step_s(Batch(0, 0, n, n * n / 2, 0, 1, 1))
            name = f"{part['model'].split('/')[1]} on {part['gpu']}, a prompt of {n}"
            yield Compared(name, "prefill", row["prefill_per_s"], n / step_s, "tokens/s")


def _offline(part: dict[str, Any]) -> Iterator[Compared]:
    model = _model(part)
    for row in part["rows"]:
        seen = simulate(model, [0.0] * part["requests"], row["input_tokens"], part["output_tokens"])
        name = f"{part['model'].split('/')[1]} on {part['gpu']}, offline, {row['input_tokens']} in"
        yield Compared(name, "requests", row["requests_per_s"], part["requests"] / seen.span_s, "requests/s")


def _model(part: dict[str, Any]) -> EngineModel:
    arguments = [part["model"], "--no-enable-prefix-caching", "--dtype", "half"]
    return EngineModel.of([*arguments, "--max-model-len", str(CONTEXT)], part["gpu"])


def plot(compared: Sequence[Compared]) -> str:
    """SVG: the error of each row, those with a bound in one colour."""
    points = [
        {
            "row": one.row,
            "quantity": one.quantity,
            "error": round(100 * one.error, 2),
            "kind": "held to a bound" if one.bound is not None else "reported",
        }
        for one in compared
    ]
    chart = (
        alt.Chart(alt.Data(values=points), title="Engine model against public measurements (modelled over measured)")
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("error:Q", title="error, per cent"),
            y=alt.Y("row:N", title=None, sort=None, axis=alt.Axis(labelLimit=420)),
            shape=alt.Shape("quantity:N", title=None),
            color=alt.Color("kind:N", title=None),
        )
        .properties(width=420)
    )
    return vl_convert.vegalite_to_svg(chart.to_json())


def main() -> int:
    """Print the table, write JSON and plot. 0 also where a bound is missed, which the table says."""
    compared = compare(yaml.safe_load(ROWS.read_text(encoding="utf-8")))
    table = Table("row", "quantity", "measured", "modelled", "error", "bound", "met")
    for one in compared:
        bound = f"{one.bound:.0%}" if one.bound is not None else ""
        met = {True: "yes", False: "NO", None: ""}[one.met]
        values = [f"{one.measured:,.4g} {one.unit}", f"{one.modelled:,.4g}", f"{one.error:+.1%}", bound, met]
        table.add_row(one.row, one.quantity, *values)
    Console(width=150).print(table)
    RESULT.parent.mkdir(exist_ok=True)
    content = [{**asdict(one), "error": one.error, "met": one.met} for one in compared]
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    PLOT.write_text(plot(compared), encoding="utf-8")
    print(f"written to {RESULT} and {PLOT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
