"""Each quantity of each measurement, measured and modelled.

Doesn't belong here: the form of a file of measurements (rows.py), the loads themselves (simulate.py), tables and
pictures (__main__.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from benchmarks.calibration.rows import Alone, Attention, Bounds, Closed, Kernel, Linear, Offline, Poisson, Rate, Rows
from benchmarks.calibration.simulate import Seen, guidellm_arrivals, in_turn, poisson_arrivals, sent_at
from lab_pipelines.engine import tables
from lab_pipelines.engine.roofline import Batch, StepCost
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.engine.tables import Hardware, Model

SEEDS = (1, 2, 3)
"""Of the arrival times, where the run's own are unknown; what is compared is the mean over them."""
CONTEXT = 8192
"""Longest sequence of an engine, where no request is longer."""


@dataclass(frozen=True)
class Compared:
    """One quantity of one row. `bound` None: reported, and no more. `measured` None: only what the model says."""

    row: str
    quantity: str
    measured: float | None
    modelled: float
    unit: str
    bound: float | None = None
    fitted: bool = False
    sweep: str | None = None
    """Of which the row is a part."""
    load: float | None = None
    """Requests per second, of a sweep."""

    @property
    def error(self) -> float | None:
        return None if self.measured is None else self.modelled / self.measured - 1

    @property
    def met(self) -> bool | None:
        return None if self.bound is None or self.error is None else abs(self.error) <= self.bound


def compare(rows: Rows) -> list[Compared]:
    """Every row of a file.

    Raises `UnknownNameError`, `EngineArgsError` or `GpuMemoryError` for a GPU or model that can't be modelled.
    """
    return [
        *(one for part in rows.poisson for one in _poisson(part)),
        *(one for part in rows.linear for one in _linear(part)),
        *(one for part in rows.attention for one in _attention(part)),
        *(one for part in rows.alone for one in _alone(part)),
        *(one for part in rows.offline for one in _offline(part)),
        *(one for part in rows.closed for one in _closed(part)),
    ]


def _poisson(part: Poisson) -> Iterator[Compared]:
    model = _model(part.model, part.gpu, part.input_tokens + part.output_tokens)
    floor_s = part.client_floor_s
    for row in part.rows:
        seen = _seen_at(part, row, model)
        sweep = _short(part.model, part.gpu)
        name = f"{sweep}, {row.per_s:g}/s" + (f", {row.part}" if row.part else "")
        itl_bound, output_bound, users_bound = _bounds(part.bounds, row)
        quantities = (
            ("TTFT", row.ttft_ms, (seen.ttft_s + floor_s) * 1000, "ms", None),
            ("ITL", row.itl_ms, seen.itl_s * 1000, "ms", itl_bound),
            ("ITL p50", row.itl_p50_ms, seen.itl_p50_s * 1000, "ms", itl_bound),
            ("ITL p99", row.itl_p99_ms, seen.itl_p99_s * 1000, "ms", itl_bound),
            ("output", row.output_tokens_per_s, seen.requests_per_s * part.output_tokens, "tokens/s", output_bound),
            ("concurrency", row.users, seen.users + floor_s * seen.requests_per_s, "requests", users_bound),
        )
        for quantity, measured, modelled, unit, bound in quantities:
            held = bound if measured is not None else None
            yield Compared(name, quantity, measured, modelled, unit, held, row.fitted, sweep, row.per_s)


def _seen_at(part: Poisson, row: Rate, model: EngineModel) -> Seen:
    if part.burst_and_seed is not None:
        draws = [guidellm_arrivals(part.requests, row.per_s, seed=part.burst_and_seed)]
    else:
        draws = [poisson_arrivals(part.requests, row.per_s, seed=seed) for seed in SEEDS]
    sizes = part.input_tokens, part.output_tokens
    each = [sent_at(model, arrivals_s, *sizes, in_flight=part.in_flight) for arrivals_s in draws]
    return Seen(*map(fmean, zip(*each, strict=True)))


def _bounds(bounds: Bounds | None, row: Rate) -> tuple[float | None, float | None, float | None]:
    """Of ITL and its quantiles, output and concurrency."""
    if bounds is None:
        return None, None, None
    if row.part == "below the knee":
        return bounds.itl, bounds.output, None
    if row.part == "knee":
        return None, None, bounds.knee_users
    return None, bounds.saturation if row.part == "saturated" else None, None


def _linear(part: Linear) -> Iterator[Compared]:
    whole = _model(part.model, part.gpu, gpus=part.gpus)
    cost = StepCost(_without_link(whole.hardware), _without_tables(whole.args.model), tensor=part.gpus)
    layers = whole.args.model.architecture.layers
    beside_s = layers * whole.hardware.attention_layer_s.value + whole.hardware.host_s.value
    for row in part.rows:
        # A step that attends to nothing: -tokens of prefix take back the writing of the KV cache.
        step_s = cost.step_s(Batch(0, 0, row.tokens, 0.0, -row.tokens, 0, 0))
        name = f"{_short(part.model, part.gpu, part.gpus)}, {row.tokens} tokens in a step"
        yield Compared(name, "linear part", row.ms, (step_s - beside_s) * 1000, "ms", fitted=row.fitted)


def _without_link(hardware: Hardware) -> Hardware:
    """As if GPUs exchanged nothing."""
    facts = {"link_bandwidth": math.inf, "link_latency_s": 0.0}
    update = {name: getattr(hardware, name).model_copy(update={"value": value}) for name, value in facts.items()}
    return hardware.model_copy(update=update)


def _without_tables(model: Model) -> Model:
    """The layers alone, as if there were one token to embed and to predict."""
    shape = model.architecture.model_copy(update={"vocabulary": 1})
    two_tables = shape.hidden * (1 if shape.tied_embeddings else 2)
    parameters = model.parameters.model_copy(update={"value": model.body_parameters + two_tables})
    return model.model_copy(update={"architecture": shape, "parameters": parameters})


def _attention(part: Attention) -> Iterator[Compared]:
    model = _model(part.model, part.gpu)
    layers, launch_s = model.args.model.architecture.layers, model.hardware.attention_layer_s.value
    for row in part.rows:
        with_it, without_it = _attending(row)
        layer_s = (model.cost.step_s(with_it) - model.cost.step_s(without_it)) / layers + launch_s
        what = f"a prompt of {row.prompt}" if row.prompt is not None else f"{row.decodes} x context {row.context}"
        name = f"{_short(part.model, part.gpu)}, a layer's attention, {what}"
        yield Compared(name, "attention", row.us, layer_s * 1e6, "us", fitted=row.fitted)


def _attending(row: Kernel) -> tuple[Batch, Batch]:
    """A step, and the same step as if its tokens attended to nothing and wrote nothing."""
    if row.prompt is not None:
        n = row.prompt
        return Batch(0, 0, n, n * n / 2, 0, 1, 1), Batch(0, 0, n, 0.0, -n, 1, 1)
    n, context = row.decodes or 1, row.context or 1
    return Batch(n, n * context, 0, 0.0, 0, n, n), Batch(n, -n, 0, float(n), 0, n, n)


def _alone(part: Alone) -> Iterator[Compared]:
    cost = _model(part.model, part.gpu).cost
    short = _short(part.model, part.gpu)
    for row in part.rows:
        if row.context is not None:
            step_s = cost.step_s(Batch(1, row.context, 0, 0.0, 0, 1, 1))
            name = f"{short}, alone, context {row.context}"
            yield Compared(name, "decode", row.decode_per_s, 1 / step_s, "tokens/s", fitted=row.fitted)
        if row.prompt is not None:
            n = row.prompt
            step_s = cost.step_s(Batch(0, 0, n, n * n / 2, 0, 1, 1))
            name = f"{short}, a prompt of {n}"
            if row.ttft_ms is not None:
                yield Compared(name, "TTFT", row.ttft_ms, step_s * 1000, "ms", fitted=row.fitted)
            else:
                yield Compared(name, "prefill", row.prefill_per_s, n / step_s, "tokens/s", fitted=row.fitted)


def _offline(part: Offline) -> Iterator[Compared]:
    for row in part.rows:
        model = _model(part.model, part.gpu, row.input_tokens + part.output_tokens)
        seen = sent_at(model, [0.0] * part.requests, row.input_tokens, part.output_tokens)
        name = f"{_short(part.model, part.gpu)}, offline, {row.input_tokens} in"
        yield Compared(name, "requests", row.requests_per_s, seen.requests_per_s, "requests/s", fitted=row.fitted)


def _closed(part: Closed) -> Iterator[Compared]:
    for row in part.rows:
        model = _model(row.model, part.gpu, part.input_tokens + part.output_tokens)
        seen = in_turn(model, row.users, part.requests, part.input_tokens, part.output_tokens)
        name = f"{_short(row.model, part.gpu)}, {row.users} at once" + (f", {row.note}" if row.note else "")
        quantities = (
            ("TTFT", row.ttft_ms, seen.ttft_s * 1000, "ms"),
            ("ITL", row.itl_ms, seen.itl_s * 1000, "ms"),
            ("output", row.output_tokens_per_s, seen.requests_per_s * part.output_tokens, "tokens/s"),
        )
        for quantity, measured, modelled, unit in quantities:
            yield Compared(name, quantity, measured, modelled, unit, fitted=row.fitted)


def _model(model: str, gpu: str, longest: int = 0, gpus: int = 1) -> EngineModel:
    """The engine as vLLM sets it up by itself, but for prefix caching, from which no measurement profits."""
    length = max(longest, min(CONTEXT, tables.model(model).architecture.max_context))
    arguments = [
        model,
        "--no-enable-prefix-caching",
        "--dtype",
        "half",
        "-tp",
        str(gpus),
        "--max-model-len",
        str(length),
    ]
    return EngineModel.of(arguments, gpu, gpus)


def _short(model: str, gpu: str, gpus: int = 1) -> str:
    return f"{model.rsplit('/', 1)[-1]} on {f'{gpus} ' if gpus > 1 else ''}{gpu}"
