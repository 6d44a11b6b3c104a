"""The typed lab spec: what a lab asks, what it deploys, what it does to it and what it reads.

Belongs here: the shape of `catalog/LNN.yaml` and every rule that can be checked without a cluster.
Doesn't belong here: what one step is (steps.py), what a finding may claim (claims.py), reading files (loader.py), or
deploying and measuring (assets/, resources/).

Every duration in a spec is in *stack seconds*: the time of the stack under test. See `Pace.time_scale`.
"""

from __future__ import annotations

from itertools import pairwise
from string import Template
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from lab_pipelines.catalog.claims import (
    DEPLOY,
    Bound,
    Cliff,
    Finding,
    Latency,
    Monotone,
    Ordering,
    Outcomes,
    Paired,
    Ratio,
    Sample,
    samples_of,
)
from lab_pipelines.catalog.client_budget import ClientBudget
from lab_pipelines.catalog.fields import Overrides, RelativePath, below, checked_promql, regular_expression
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.catalog.steps import AnyStep, FireAlertStep, LoadStep, ReclaimsStep, Step
from lab_pipelines.catalog.strict import Name, SpecModel, Text
from lab_pipelines.catalog.units import UNITS
from lab_pipelines.deployment import MOST_TURNS, Target
from lab_pipelines.statistics.paired import MIN_PAIRS

LabId = Annotated[str, StringConstraints(pattern=r"^L[0-9]{2,3}$")]


class Nodes(SpecModel):
    """Nodes of one kind that the lab needs. `sku` must be priced in catalog/prices.yaml."""

    sku: Text
    count: int = Field(default=1, ge=1)
    """All that there are, or with `min_count` the most that there may be at once."""
    gpus: int = Field(default=0, ge=0)
    """GPUs that the lab uses on each node: two of the four of an NC64as_T4_v3 are 2."""
    min_count: int | None = Field(default=None, ge=0)
    """The pool scales: an autoscaler keeps it between so many nodes and `count`. None: all are there all the time."""
    priority: Literal["on_demand", "spot"] = "on_demand"
    """How they are rented: until they are given back, or cheaper and until Azure wants them back."""

    @model_validator(mode="after")
    def _min_not_above_count(self) -> Nodes:
        if self.min_count is not None and self.min_count > self.count:
            raise ValueError(f"min_count ({self.min_count}) is above count ({self.count})")
        return self


class Erratum(SpecModel):
    """Where the curriculum's letter is wrong or out of date: what it says, what holds, and how that is known."""

    letter: Text
    today: Text
    source: Text
    """A public page or file, or the part of the curriculum that contradicts the letter."""


class Chart(SpecModel):
    """The upstream Helm chart, pinned, and the lab's values for it (relative to the repository)."""

    name: Name
    repository: Text
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+.*$")]
    values: RelativePath

    @field_validator("values")
    @classmethod
    def _inside_helm_values(cls, value: str) -> str:
        return below(value, "helm-values/")


ComponentKind = Literal["vllm", "http_server", "dcgm_exporter", "monitoring", "logging", "workload"]
"""What a target must know how to run. `workload`: whatever the chart or the steps' manifests bring."""


class Component(SpecModel):
    """One part of the stack, installed by one chart; a target runs it by its `kind`."""

    name: Name
    kind: ComponentKind
    chart: Chart


class Stack(SpecModel):
    """What is deployed. Empty where the steps' manifests are the whole stack."""

    components: list[Component] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Stack:
        if repeated := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise ValueError(f"components: {', '.join(repeated)} is given more than once")
        return self

    def component(self, name: str) -> Component:
        """The component of that name. Raises `KeyError`."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(f"the stack has no component {name!r}; it has: {', '.join(self.names)}")

    def of_kind(self, kind: ComponentKind) -> Component | None:
        """The first component of a kind, if there is one."""
        return next((component for component in self.components if component.kind == kind), None)

    @property
    def names(self) -> list[str]:
        return [component.name for component in self.components]


class Variant(SpecModel):
    """One configuration of the stack: `values`, by component, overrides single Helm values of that component."""

    id: Name
    description: Text
    sku: Text | None = None
    """The node that it runs on, one of the lab's `nodes`; None: the first of them."""
    targets: list[Target] | None = Field(default=None, min_length=1)
    """Where it can run; None: wherever the lab can. The other targets leave it out, and say so."""
    refused: Text | None = None
    """Regular expression: the engine must refuse to start, with a message that this matches. That is its result."""
    values: dict[Name, Overrides] = Field(default_factory=dict)

    @field_validator("refused")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return value if value is None else regular_expression(value)


class Pace(SpecModel):
    """How long each stage holds, and how fast the stack's clock runs.

    A stage ends when it has held for `hold_s` and enough requests have started and finished within it: `min_requests`,
    and `requests_per_user` for each concurrent user. At `max_hold_s` it ends all the same and fails the blocking check.
    `time_scale` = stack seconds per wall second; anything but 1 needs a modelled server, and is recorded in every row
    and shown in every table.
    """

    time_scale: float = Field(gt=0)
    hold_s: float = Field(gt=0)
    min_requests: int = Field(ge=1)
    requests_per_user: int = Field(ge=1)
    """Only requests that begin and end in a stage count for it, so a stage that is short for its latency keeps the fast
    ones and drops the slow ones: with 32 users and one request each, the median TTFT came out four times too low."""
    max_hold_s: float = Field(gt=0)
    max_users: int | None = Field(default=None, ge=1)
    """Leaves out the stages above this concurrency."""
    baseline: bool = True
    """Whether a run at this pace may be pinned as a baseline."""

    def requests_needed(self, users: int) -> int:
        """How many requests must begin and end in a stage of so many users."""
        return max(self.min_requests, self.requests_per_user * users)

    @model_validator(mode="after")
    def _max_not_below_hold(self) -> Pace:
        if self.max_hold_s < self.hold_s:
            raise ValueError(f"max_hold_s ({self.max_hold_s:g}) is below hold_s ({self.hold_s:g})")
        return self


class Measure(SpecModel):
    """One number per stage or per run, by PromQL or by SQL; exactly one of `promql` and `sql`.

    `over: stage_end` asks once, at the end of the stage (rates and quantiles over `[$stage]`); `over: stage` samples
    through the stage and keeps the `statistic`; `over: run` asks once over the time of all steps of a variant;
    `over: variants` asks once, when every variant has been walked.
    In PromQL `$selector` stands for the label matchers of the lab's namespace and `$stage` for the window's length as a
    PromQL duration. `sql` names a file in warehouse/measures/ that answers with one value. It may use `$session_id`
    (one variant's session), for a stage `$step`, `$stage`, `$start` and `$end`, and for `over: variants` only `$run_id`
    and `$target`. The tables hold the rows of its own run, and only for `over: variants` those of all. Beside the value
    it may answer with a column `gap`, which says why there is none.
    `after: cost` asks when the run's own cost is attributed, which needs its released stack: only SQL can wait so long.
    """

    name: Name
    unit: str
    promql: Text | None = None
    sql: RelativePath | None = None
    over: Literal["stage_end", "stage", "run", "variants"]
    after: Literal["load", "cost"] = "load"
    statistic: Literal["mean", "max", "min", "last"] = "last"

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, value: str) -> str:
        if value not in UNITS:
            raise ValueError(f"unknown unit {value!r}; known: {', '.join(sorted(UNITS))}")
        return value

    @field_validator("promql")
    @classmethod
    def _placeholders(cls, value: str | None) -> str | None:
        return value if value is None else checked_promql(value, placeholders={"selector", "stage"})

    @field_validator("sql")
    @classmethod
    def _inside_measures(cls, value: str | None) -> str | None:
        return value if value is None else below(value, "warehouse/measures/")

    @model_validator(mode="after")
    def _one_source(self) -> Measure:
        if (self.promql is None) == (self.sql is None):
            raise ValueError("give exactly one of promql and sql")
        if self.over == "variants" and self.sql is None:
            raise ValueError("`over: variants` compares rows of several sessions, which PromQL can't; name a sql file")
        if self.after == "cost" and self.sql is None:
            raise ValueError("`after: cost` comes when the stack and its Prometheus are gone; name a sql file")
        if self.over == "stage" and self.sql is not None:
            raise ValueError("sql answers once: use `over: stage_end` or `over: run`")
        if self.over == "stage" and "$stage" in (self.promql or ""):
            raise ValueError("$stage belongs to `over: stage_end`; a sampled measure takes a fixed range such as [30s]")
        return self

    def query(self, *, selector: str, stage_s: float) -> str:
        """The PromQL to send. `stage_s` is the window's length in wall seconds, Prometheus's own clock."""
        assert self.promql is not None
        return Template(self.promql).substitute(selector=selector, stage=f"{max(round(stage_s * 1000), 1)}ms")


class Figure(SpecModel):
    """A picture of the lab's result, drawn from its rows: one mark per stage, one series per variant or step.

    `x` and `y` are `load`, `variant`, the name of one of the lab's measures, or a column of the view `stage_table`.
    """

    id: Name
    title: Text
    kind: Literal["line", "scatter", "bars"]
    x: Name
    y: Name
    by: Literal["variant", "step"] = "variant"
    step: Name | None = None
    """Only this step's stages."""
    load: float | None = Field(default=None, gt=0)
    """Only the stages with this load."""
    log_y: bool = False


class Total(SpecModel):
    """A counter of a component's that must agree with what the client counted over each load step on it."""

    component: Name = "vllm"
    client: Literal["output_tokens", "requests_ok"]
    counter: Text
    """A plain selector, no function: the increase is computed from the raw samples, resets included."""

    @field_validator("counter")
    @classmethod
    def _has_selector(cls, value: str) -> str:
        return checked_promql(value, placeholders={"selector"}, form="selector")


class ErrorBudget(SpecModel):
    """When a run's numbers are not to be believed: bounds of asset checks, of which all but `client` block."""

    error_rate: float = Field(ge=0, le=1)
    prometheus_disagreement: float = Field(gt=0, le=1)
    totals: list[Total]
    """Empty for a lab whose load nothing counts on the server's side."""
    client: ClientBudget = Field(default_factory=ClientBudget)
    """Bounds of the load generator's own error. A stage over them blocks nothing, and has no valid requests."""


class Identity(SpecModel):
    """What every lab of the year has, complete or not."""

    id: LabId
    title: Text
    phase: int = Field(ge=1, le=8)
    week: int = Field(ge=1, le=45)
    """Its dates are the week's, in calendar.yaml."""
    sessions: int = Field(ge=1, le=2)
    """Sessions of four hours."""
    kinds: list[Literal["chaos", "finops", "integration", "consolidation"]] = Field(default_factory=list)
    namespace: Annotated[str, StringConstraints(pattern=r"^lab-[a-z0-9-]{1,40}$")] = ""
    """The lab's own namespace; unless given, `lab-06` for L06."""
    cost_center: Name = "llm-serving-labs"
    nodes: list[Nodes]
    """Empty for a lab that deploys nothing."""
    question: Text
    concepts: list[Text] = Field(min_length=1)
    builds_on: list[LabId] = Field(default_factory=list)
    """Prior labs whose stack, numbers or skill it uses."""
    errata: list[Erratum] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _namespace_by_id(cls, data: Any) -> Any:
        if isinstance(data, dict) and "namespace" not in data and isinstance(data.get("id"), str):
            return {**data, "namespace": f"lab-{data['id'][1:]}"}
        return data

    @model_validator(mode="after")
    def _builds_on_prior_labs(self) -> Identity:
        if later := [lab for lab in self.builds_on if lab >= self.id]:
            raise ValueError(f"builds_on: {', '.join(later)} does not come before {self.id}")
        return self

    @property
    def cost_labels(self) -> dict[str, str]:
        """The labels that every object of the lab carries, so that a bill can be split by them."""
        return {"cost-center": self.cost_center, "lab": self.id.lower(), "phase": str(self.phase)}


class Outline(Identity):
    """A lab that is not complete: what it will vary and record, and what is missing until it can run."""

    parameters: dict[str, list[bool | int | float | str]] = Field(default_factory=dict)
    records: list[Text] = Field(default_factory=list)
    """The numbers to record."""
    missing: list[Text] = Field(min_length=1)


class LabSpec(Identity):
    """A complete lab."""

    targets: list[Target] = Field(min_length=1)
    needs: Text | None = None
    """Why the other targets can't serve it: a sentence without its full stop; part of their refusal."""
    network: Literal["closed", "open"] = "closed"
    """Of the lab's namespace in a cluster. `closed`: pods reach each other, names, and HTTPS outside, and only the
    cluster's Prometheus reaches them. `open`: no rule at all."""
    stack: Stack
    variants: list[Variant] = Field(min_length=1)
    turns: int = Field(default=1, ge=1, le=MOST_TURNS)
    """How many times a run walks the variants, in an order that balances who comes first (lab_pipelines/turns.py)."""
    steps: list[Step] = Field(min_length=1)
    paces: dict[Name, Pace]
    default_pace: dict[Target, Name]
    measures: list[Measure]
    findings: list[Finding]
    figures: list[Figure] = Field(default_factory=list)
    slo: Slo | None = None
    """Which requests are useful. None: slo.py's for interactive work, of a lab that asks for completions."""
    error_budget: ErrorBudget

    @model_validator(mode="after")
    def _references_hold(self) -> LabSpec:
        for field, names in {
            "variants": [v.id for v in self.variants],
            "steps": [s.name for s in self.flat_steps],
            "measures": [m.name for m in self.measures],
            "findings": [f.id for f in self.findings],
            "figures": [f.id for f in self.figures],
        }.items():
            repeated = sorted({n for n in names if names.count(n) > 1})
            if repeated:
                raise ValueError(f"{field}: {', '.join(repeated)} is given more than once")
        for target in self.targets:
            pace = self.default_pace.get(target)
            if pace is None:
                raise ValueError(f"default_pace: names no pace for target {target}")
            if pace not in self.paces:
                raise ValueError(f"default_pace: {target} names {pace!r}, which is not one of the paces")
        self._variants_hold()
        self._steps_hold()
        self._components_hold()
        self._findings_hold()
        return self

    def measures_of(self, finding: Finding) -> list[Measure]:
        """The measures that a finding is judged on."""
        return [measure for measure in self.measures if measure.name in finding.measures]

    @property
    def interval_claims(self) -> int:
        """How many findings share the chance by which any of their intervals may miss the truth."""
        return sum(finding.by_interval for finding in self.findings)

    def is_judged_after_cost(self, finding: Finding) -> bool:
        return any(measure.after == "cost" for measure in self.measures_of(finding))

    def _variants_hold(self) -> None:
        skus = [node.sku for node in self.nodes]
        if not skus:
            raise ValueError("nodes: a complete lab runs on at least one node")
        if twice := next((sku for sku in skus if skus.count(sku) > 1), None):
            raise ValueError(f"nodes: several entries of one sku, {twice}; a variant names its nodes by sku")
        for variant in self.variants:
            if variant.sku is not None and variant.sku not in skus:
                raise ValueError(f"variants: {variant.id} runs on {variant.sku}; the lab's nodes: {', '.join(skus)}")
            if unknown := sorted(set(variant.targets or []) - set(self.targets)):
                raise ValueError(f"variants: {variant.id} names target {', '.join(unknown)}, where the lab can't run")
        for target in self.targets:
            here = self.variants_on(target)
            if not here or here[0].refused is not None:
                raise ValueError(f"variants: the first one on target {target} must be one that comes up")
        if idle := [sku for sku in skus if all(self.nodes_of(variant).sku != sku for variant in self.variants)]:
            raise ValueError(f"nodes: no variant runs on {', '.join(idle)}")

    def _steps_hold(self) -> None:
        ids = [variant.id for variant in self.variants]
        for step in self.flat_steps:
            if unknown := sorted(set(step.targets or []) - set(self.targets)):
                raise ValueError(f"steps: {step.name} names target {', '.join(unknown)}, where the lab can't run")
            if unknown := sorted(set(step.variants or []) - set(ids)):
                raise ValueError(f"steps: {step.name} names variant {', '.join(unknown)}; there are: {', '.join(ids)}")
        for step in self.steps:
            if isinstance(step, FireAlertStep) and (step.cause.targets or step.cause.variants):
                raise ValueError(
                    f"steps: {step.cause.name} is done where {step.name} is; leave out targets and variants"
                )
            if isinstance(step, ReclaimsStep) and (missing := step.rates_without(self.load_steps)):
                listed = ", ".join(f"{rate:g}" for rate in missing)
                raise ValueError(
                    f"steps: {step.name} needs a load step with the rate {listed}, of one replica of several"
                )

    def _components_hold(self) -> None:
        known = self.stack.names
        for variant in self.variants:
            if unknown := sorted(variant.values.keys() - set(known)):
                raise ValueError(f"variants: {variant.id} has values for {', '.join(unknown)}, which the stack lacks")
        for step in self.flat_steps:
            if step.name == DEPLOY:
                raise ValueError(f"steps: {DEPLOY} is the name of the coming up itself; choose another")
            name = getattr(step, "component", None)
            if name is not None and name not in known:
                raise ValueError(f"steps: {step.name} names component {name!r}; the stack has: {', '.join(known)}")

    def _findings_hold(self) -> None:
        over = {measure.name: measure.over for measure in self.measures}
        variants = [variant.id for variant in self.variants]
        for finding in self.findings:
            where = f"findings: {finding.id}"
            for side in finding.sides:
                self._sample_holds(finding.id, side)
            if isinstance(finding, Monotone | Ordering | Cliff):
                self._sequence_holds(finding)
            if isinstance(finding, Paired) and self.turns < MIN_PAIRS:
                raise ValueError(f"{where} compares pairs of one turn and takes {MIN_PAIRS}; turns is {self.turns}")
            if isinstance(finding, Outcomes):
                steps = [DEPLOY, *(step.name for step in self.flat_steps)]
                if unknown := [name for name in finding.steps if name not in steps]:
                    raise ValueError(f"{where} names {', '.join(unknown)}, which is not one of the steps")
            if self.objective is None and str(getattr(finding, "quantity", None)).startswith("goodput"):
                raise ValueError(f"{where} is about goodput; give the lab an slo")
            if unknown := [name for name in finding.measures if name not in over]:
                raise ValueError(f"{where} names {', '.join(unknown)}, which is not one of the measures")
            whole = [over[name] in ("run", "variants") for name in finding.measures]
            if isinstance(finding, Ratio | Paired) and any(whole):
                raise ValueError(f"{where} compares stages; {finding.measures[0]} is of a whole run")
            if len(set(whole)) > 1:
                raise ValueError(f"{where} compares a measure of the run with one of its stages")
            if isinstance(finding, Bound | Outcomes) and finding.variant not in (None, *variants):
                raise ValueError(f"{where} names variant {finding.variant}, which the lab lacks")

    def _sequence_holds(self, finding: Monotone | Ordering | Cliff) -> None:
        """A step and the shape of its requests, and at least two loads, or several variants at one of them."""
        where = f"findings: {finding.id}"
        for sample in samples_of(finding, [self._a_load(finding, where)]):
            self._sample_holds(finding.id, sample)
        loads = self._loads(finding, where)
        if finding.shape is not None and finding.quantity not in get_args(Latency):
            raise ValueError(f"{where}: only latencies can be told apart by the request's shape")
        if not isinstance(finding, Ordering) and len(loads) < 2:
            raise ValueError(f"{where}: the step has but one load, and no neighbour to compare it with")
        if not isinstance(finding, Ordering) and any(after <= before for before, after in pairwise(loads)):
            listed = ", ".join(f"{load:g}" for load in loads)
            raise ValueError(f"{where} goes from each load to the next, which must be higher; the step has {listed}")
        if isinstance(finding, Cliff) and finding.after not in loads[:-1]:
            listed = ", ".join(f"{load:g}" for load in loads[:-1])
            raise ValueError(f"{where}: after is {finding.after:g}; give the load before the cliff, one of: {listed}")
        if isinstance(finding, Ordering) and len(set(finding.variants)) < len(finding.variants):
            raise ValueError(f"{where}: a variant is listed twice")

    def _loads(self, finding: Monotone | Ordering | Cliff, where: str) -> list[float]:
        steps = {step.name: step for step in self.load_steps}
        if finding.step is None and len(steps) != 1:
            raise ValueError(f"{where}: give the step, one of: {', '.join(steps)}")
        name = finding.step or next(iter(steps))
        if name not in steps:
            raise ValueError(f"{where}: {name} is not one of the load steps: {', '.join(steps)}")
        return steps[name].loads

    def _a_load(self, finding: Monotone | Ordering | Cliff, where: str) -> float | None:
        return finding.load if isinstance(finding, Ordering) else next(iter(self._loads(finding, where)), None)

    def _sample_holds(self, finding: str, sample: Sample) -> None:
        """Every field that is left out must have but one choice."""
        where = f"findings: {finding}"
        variants = [variant.id for variant in self.variants if variant.refused is None]
        if sample.variant is None and len(variants) > 1:
            raise ValueError(f"{where}: give the variant, one of: {', '.join(variants)}")
        if sample.variant is not None and sample.variant not in variants:
            raise ValueError(f"{where}: no variant {sample.variant} comes up; there are: {', '.join(variants)}")
        steps = {step.name: step for step in self.load_steps}
        if sample.step is None and len(steps) > 1:
            raise ValueError(f"{where}: give the step, one of: {', '.join(steps)}")
        if not steps or (sample.step is not None and sample.step not in steps):
            raise ValueError(f"{where}: {sample.step} is not one of the load steps: {', '.join(steps)}")
        step = steps[sample.step] if sample.step else next(iter(steps.values()))
        if sample.load is None and len(step.loads) > 1:
            raise ValueError(f"{where}: give the load, one of: {', '.join(f'{load:g}' for load in step.loads)}")
        if sample.load is not None and (found := step.loads.count(sample.load)) != 1:
            which = "no stage" if found == 0 else f"not one stage but {found}"
            raise ValueError(f"{where}: {which} of {step.name} has load {sample.load:g}")
        if sample.shape is not None and sample.shape >= len(step.requests):
            raise ValueError(f"{where}: {step.name} has {len(step.requests)} shapes, counted from 0")

    def variants_on(self, target: Target) -> list[Variant]:
        """Those that can run on a target, in the order of the spec."""
        return [variant for variant in self.variants if variant.targets is None or target in variant.targets]

    def choose_variants(self, asked: str | None, target: Target) -> list[Variant]:
        """Those of the comma-separated `asked` that there are on `target`, in the spec's order; None asks for all.

        Raises `KeyError`, with the remedy in its message, for a name that isn't one of them, and for a choice that
        begins with a variant that is meant to be refused: something must come up first.
        """
        here = self.variants_on(target)
        if asked is None:
            return here
        names, listed = [name.strip() for name in asked.split(",")], ", ".join(variant.id for variant in here)
        if unknown := [name for name in names if name not in {variant.id for variant in here}]:
            raise KeyError(f"{self.id} has no variant {unknown[0]!r} on target {target}; choose from: {listed}")
        chosen = [variant for variant in here if variant.id in names]
        if chosen[0].refused is not None:
            raise KeyError(
                f"variant {chosen[0].id} of {self.id} is expected not to come up, and is walked after one that does; "
                f"choose another with it, from: {listed}"
            )
        return chosen

    def nodes_of(self, variant: Variant) -> Nodes:
        """The nodes that a variant runs on."""
        return next((node for node in self.nodes if node.sku == variant.sku), self.nodes[0])

    def steps_of(self, variant: str) -> list[AnyStep]:
        """The steps of one variant, in order."""
        return [step for step in self.steps if step.is_of(variant)]

    @property
    def flat_steps(self) -> list[AnyStep]:
        """Every step, and after a `fire_alert` its cause."""
        return [s for step in self.steps for s in ([step, step.cause] if isinstance(step, FireAlertStep) else [step])]

    @property
    def load_steps(self) -> list[LoadStep]:
        return [step for step in self.flat_steps if isinstance(step, LoadStep)]

    @property
    def objective(self) -> Slo | None:
        """What a request must keep to be useful; None where a lab states none and asks for no completions."""
        if self.slo is None and any(step.asks_for_tokens for step in self.load_steps):
            return INTERACTIVE
        return self.slo

    def pace(self, name: str | None, target: Target) -> tuple[str, Pace]:
        """The named pace, or the target's default. Raises `KeyError` with the known names in its message."""
        chosen = name or self.default_pace[target]
        if chosen not in self.paces:
            raise KeyError(f"{self.id} has no pace {chosen!r}; it has: {', '.join(self.paces)}")
        return chosen, self.paces[chosen]
