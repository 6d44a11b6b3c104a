"""What a lab's run would deploy, how long it would take, and what that would cost. Pure: specs, values and prices in.

Belongs here: the arithmetic of `labs plan`. Doesn't belong here: reading files, printing (cli/), or what a run really
took and cost (warehouse/views, cost.py).

Seconds are stack seconds, as in the specs. Two figures each: *at most* adds up what the spec allows (max_hold_s,
within_s); *expected* lets a stage end when the engine model says that enough requests have ended in it, and a wait last
its whole time. Both count the modelled cold start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.prices import PriceSheet, UnknownPriceError
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.catalog.stack import Component, Nodes
from lab_pipelines.catalog.steps import (
    AnyStep,
    ApplyStep,
    Burst,
    CollectLogsStep,
    CompletionRequest,
    FireAlertStep,
    IdleStep,
    LoadStep,
    ObserveStep,
    ReclaimsStep,
    RestartStep,
    StartStep,
    StopStep,
)
from lab_pipelines.deployment import Target
from lab_pipelines.engine import cold_start, tables
from lab_pipelines.engine.args import EngineArgsError
from lab_pipelines.engine.memory import BLOCK_TOKENS, GpuMemoryError
from lab_pipelines.engine.roofline import Batch
from lab_pipelines.engine.setup import EngineModel
from lab_pipelines.load_stages import LoadStage, load_stages
from lab_pipelines.turns import Visit

SESSION_S = 4 * 3600
"""A session of the curriculum: four hours."""

ArgumentsOf = Callable[[Component, Sequence[Overrides]], list[str]]
"""vLLM's arguments for a component of kind `vllm`, its values with the overrides. Raises `ValueError`."""
RequestTime = Callable[[int], tuple[float, int]]
"""Users → seconds of a request, and how many of them run at once."""


@dataclass(frozen=True)
class PlannedNodes:
    """Nodes of one kind. The price is USD per node-hour; None where the sheet has none."""

    sku: str
    count: int
    gpu: str | None
    gpus: int
    """GPUs that the lab uses on each."""
    usd_per_hour: Decimal | None


@dataclass(frozen=True)
class PlannedPart:
    """A cold start's phase or a step, and its time in stack seconds."""

    name: str
    kind: str
    expected_s: float
    at_most_s: float
    variant: str
    sku: str
    trial: int = 1
    """The turn, from 1."""


@dataclass(frozen=True)
class Plan:
    """What would be deployed and done. An outline has no components and no parts: it is bounded by its sessions."""

    lab: str
    title: str
    complete: bool
    target: Target | None
    pace: str | None
    time_scale: float
    variants: list[str]
    turns: int
    """How many times they are walked."""
    namespace: str
    labels: dict[str, str]
    components: list[Component]
    nodes: list[PlannedNodes]
    parts: list[PlannedPart]
    expected_s: float | None
    at_most_s: float
    region: str
    expected_usd: Decimal | None
    """None where a price is missing. Only the nodes of the variant that is walked are up."""
    at_most_usd: Decimal | None
    prices: str
    """Where the prices come from, and of when."""
    unknown: list[str]
    """What the plan leaves out, one sentence each."""


def plan_outline(outline: Outline, sheet: PriceSheet, *, region: str) -> Plan:
    """What is known of a lab that is not complete: its nodes, and its sessions as the longest time."""
    unknown = list(outline.missing)
    nodes = _nodes(outline.nodes, sheet, region, unknown)
    at_most_s = float(outline.sessions * SESSION_S)
    prices = [_usd(node, at_most_s) for node in nodes]
    return _plan(
        outline, nodes, sheet, region, parts=[], at_most_s=at_most_s, at_most_usd=_sum(prices), unknown=unknown
    )


def plan_lab(
    spec: LabSpec,
    sheet: PriceSheet,
    arguments_of: ArgumentsOf,
    *,
    target: Target,
    pace_name: str,
    visits: Sequence[Visit],
    region: str,
) -> Plan:
    """One run of `spec`, on the nodes of the variants that it visits alone.

    What isn't modelled is left out of the sums and named in `unknown`.
    """
    pace, unknown = spec.paces[pace_name], list[str]()
    walked = [spec.nodes_of(visit.variant) for visit in visits]
    nodes = _nodes([node for node in spec.nodes if node in walked], sheet, region, unknown)
    by_sku = {node.sku: node for node in nodes}
    parts: list[PlannedPart] = []
    former: str | None = None
    for visit in visits:
        variant = visit.variant
        node = by_sku[spec.nodes_of(variant).sku]
        estimate = _Estimate(spec, visit, pace, node, arguments_of, unknown)
        # The next variant's engine starts on the node that is there; another SKU is another node.
        parts += estimate.cold_start(warm=former == node.sku)
        if variant.refused is None:
            parts += [estimate.step(step) for step in spec.steps_of(variant.id) if step.can_be_done_on(target)]
        former = node.sku
    return _plan(
        spec,
        nodes,
        sheet,
        region,
        parts=parts,
        at_most_s=sum(part.at_most_s for part in parts),
        expected_usd=_sum([_usd(by_sku[part.sku], part.expected_s) for part in parts]),
        at_most_usd=_sum([_usd(by_sku[part.sku], part.at_most_s) for part in parts]),
        unknown=unknown,
        target=target,
        pace=pace_name,
        time_scale=pace.time_scale,
        variants=list(dict.fromkeys(visit.variant.id for visit in visits)),
        turns=max(visit.trial for visit in visits),
        components=spec.stack.components,
    )


def _plan(
    lab: Identity,
    nodes: list[PlannedNodes],
    sheet: PriceSheet,
    region: str,
    *,
    parts: list[PlannedPart],
    at_most_s: float,
    unknown: list[str],
    time_scale: float = 1.0,
    **more: Any,
) -> Plan:
    return Plan(
        lab=lab.id,
        title=lab.title,
        complete=isinstance(lab, LabSpec),
        namespace=lab.namespace,
        labels=lab.cost_labels,
        nodes=nodes,
        parts=parts,
        expected_s=sum(part.expected_s for part in parts) if parts else None,
        at_most_s=at_most_s,
        region=region,
        prices=f"{sheet.source}, {sheet.as_of}",
        unknown=list(dict.fromkeys(unknown)),
        time_scale=time_scale,
        **{"target": None, "pace": None, "variants": [], "turns": 1, "components": [], "expected_usd": None, **more},
    )


def _usd(node: PlannedNodes, seconds: float) -> Decimal | None:
    if node.usd_per_hour is None:
        return None
    return node.usd_per_hour * node.count * Decimal(str(seconds)) / 3600


def _sum(amounts: Sequence[Decimal | None]) -> Decimal | None:
    """None where one of them is not known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal()).quantize(Decimal("0.0001")) if len(known) == len(amounts) else None


def _nodes(nodes: Sequence[Nodes], sheet: PriceSheet, region: str, unknown: list[str]) -> list[PlannedNodes]:
    planned = []
    for node in nodes:
        gpu, price = None, None
        try:
            gpu = sheet.sku(node.sku).gpu
            price = sheet.unit_price(node.sku, region, node.priority).usd
        except UnknownPriceError as error:
            unknown.append(f"what {node.sku} costs: {error.args[0]}")
        planned.append(PlannedNodes(sku=node.sku, count=node.count, gpu=gpu, gpus=node.gpus, usd_per_hour=price))
    return planned


class _Estimate:
    """The times of one run's parts. What can't be known goes to `unknown`."""

    def __init__(
        self,
        spec: LabSpec,
        visit: Visit,
        pace: Pace,
        node: PlannedNodes,
        arguments_of: ArgumentsOf,
        unknown: list[str],
    ) -> None:
        self._spec, self._variant, self._trial, self._pace = spec, visit.variant, visit.trial, pace
        self._node, self._gpu, self._arguments_of, self._unknown = node, node.gpu, arguments_of, unknown

    def cold_start(self, *, warm: bool) -> list[PlannedPart]:
        """The phases until the engine answers; `warm`: on a node that is there, with its image.

        Empty, and said, for a stack whose cold start is not modelled.
        """
        engine = self._spec.stack.of_kind("vllm")
        if engine is None:
            self._unknown.append(
                "how long nodes and charts take until they are ready: a cold start is modelled for vLLM alone"
            )
            return []
        return [
            self._part(phase.name, "cold_start", phase.duration_s, phase.duration_s)
            for phase in self._phases(engine, [])
            if not warm or phase.name in cold_start.OF_THE_ENGINE
        ]

    def step(self, step: AnyStep) -> PlannedPart:
        return self._part(step.name, step.kind, *self._times(step))

    def _part(self, name: str, kind: str, expected_s: float, at_most_s: float) -> PlannedPart:
        return PlannedPart(name, kind, expected_s, at_most_s, self._variant.id, self._node.sku, self._trial)

    def _times(self, step: AnyStep) -> tuple[float, float]:
        match step:
            case LoadStep():
                return self._load(step)
            case ApplyStep() | ObserveStep():
                waits = isinstance(step, ObserveStep) or bool(step.pods)
                return (step.within_s if waits else 0.0), step.within_s
            case RestartStep() | StartStep():
                return self._started(step.component, [step.values] if isinstance(step, RestartStep) else [])
            case FireAlertStep():  # its cause goes on while the alert is waited for
                expected_s, at_most_s = self._times(step.cause)
                return max(expected_s, step.within_s), max(at_most_s, step.within_s)
            case IdleStep():
                return step.duration_s, step.duration_s
            case StopStep() | CollectLogsStep() | ReclaimsStep():  # reclaims have a time of their own
                return 0.0, 0.0

    def _started(self, name: str, overrides: Sequence[Overrides]) -> tuple[float, float]:
        component = self._spec.stack.component(name)
        if component.kind != "vllm":
            self._unknown.append(f"how long {name} takes to come up again")
            return 0.0, 0.0
        seconds = sum(
            phase.duration_s for phase in self._phases(component, overrides) if phase.name in cold_start.OF_THE_ENGINE
        )
        return seconds, seconds

    def _phases(self, engine: Component, overrides: Sequence[Overrides]) -> list[cold_start.PlannedPhase]:
        if self._gpu is None:
            self._unknown.append(
                f"how long {engine.name} takes to start: its node has no GPU that the price sheet names"
            )
            return []
        try:
            model = self._arguments(engine, overrides)[0]
            return cold_start.cold_start_plan(self._gpu, model)
        except (tables.UnknownNameError, ValueError) as error:
            self._unknown.append(f"how long {engine.name} takes to start: {error.args[0]}")
            return []

    def _arguments(self, engine: Component, overrides: Sequence[Overrides]) -> list[str]:
        return self._arguments_of(engine, [self._variant.values.get(engine.name, {}), *overrides])

    def _load(self, step: LoadStep) -> tuple[float, float]:
        try:
            stages = load_stages(step, self._pace)
        except ValueError as error:
            self._unknown.append(str(error))
            return 0.0, 0.0
        request_s = self._request_s(step)
        expected = [min(_stage_s(stage, step, request_s), stage.max_hold_s) for stage in stages]
        return sum(expected), sum(stage.max_hold_s for stage in stages)

    def _request_s(self, step: LoadStep) -> RequestTime | None:
        """None for what isn't modelled."""
        component = self._spec.stack.component(step.component)
        shapes = [request for request in step.requests if isinstance(request, CompletionRequest)]
        if component.kind != "vllm" or not shapes:
            return None
        try:
            if self._gpu is None:
                raise ValueError("its node has no GPU that the price sheet names")
            model = EngineModel.of(self._arguments(component, []), self._gpu, max(self._node.gpus, 1))
        except (tables.UnknownNameError, EngineArgsError, GpuMemoryError, ValueError) as error:
            self._unknown.append(f"how long a request of {step.name} takes: {error.args[0]}")
            return None
        return lambda users: _request_time(model, shapes, users)


def _stage_s(stage: LoadStage, step: LoadStep, request_s: RequestTime | None) -> float:
    """Seconds until the stage has held and enough requests have ended in it."""
    if stage.offered_per_s is not None:
        return max(stage.hold_s, stage.min_requests / stage.offered_per_s)
    if stage.users is None or request_s is None:
        return stage.hold_s
    seconds, batch = request_s(stage.users)
    # Requests that were under way when a closed loop's stage began don't count: all but the first wait a round longer.
    late = seconds if stage.stage > 0 and not isinstance(step.profile, Burst) else 0.0
    return max(stage.hold_s, stage.min_requests / batch * seconds + late)


def _request_time(model: EngineModel, shapes: Sequence[CompletionRequest], users: int) -> tuple[float, int]:
    """Seconds of a mean request in a steady closed loop of `users`, and how many of them the KV cache lets run.

    Prefill of one's own prompt, then one engine step per output token in a batch of the others at half their output;
    the others' prefills come in between, one for each of them in the time of one request.
    """
    weights = sum(shape.weight for shape in shapes)
    input_tokens = sum(shape.weight * shape.input_tokens for shape in shapes) / weights
    output_tokens = sum(shape.weight * shape.output_tokens for shape in shapes) / weights
    fit = int(model.memory.kv_blocks * BLOCK_TOKENS / (input_tokens + output_tokens))
    batch = max(min(users, fit, model.args.max_num_seqs), 1)
    prefill = Batch(0, 0, round(input_tokens), input_tokens * input_tokens / 2, 0, 1, 1)
    context = round(batch * (input_tokens + output_tokens / 2))
    decode = Batch(batch, context, 0, 0.0, 0, batch, batch)
    return batch * model.cost.step_s(prefill) + output_tokens * model.cost.step_s(decode), batch
