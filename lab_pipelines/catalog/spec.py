"""The typed lab spec: what a lab asks, what it deploys, what it does to it, what it reads and what it claims.

Belongs here: the shape of `catalog/LNN.yaml` and every rule that can be checked without a cluster.
Doesn't belong here: reading files (loader.py), or deploying and measuring (assets/, resources/).

Every duration in a spec is in *stack seconds*: the time of the stack under test. See `Pace.time_scale`.
"""

from __future__ import annotations

import re
from string import Template
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from lab_pipelines.catalog.units import UNITS
from lab_pipelines.deployment import Target

LabId = Annotated[str, StringConstraints(pattern=r"^L[0-9]{2}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""A variant, stage, measure or pace name; it becomes a path part, a label value and a SQL key."""
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
RelativePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]


class SpecModel(BaseModel):
    """Strict, frozen, and without unknown keys, so that a typing error can't pass for a default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Gpu(SpecModel):
    """The node that the stack needs. `sku` must be priced in catalog/prices.yaml."""

    sku: Text
    nodes: int = Field(default=1, ge=1)


class Chart(SpecModel):
    """The upstream Helm chart, pinned, and the lab's values for it (relative to the repository)."""

    name: Name
    repository: Text
    version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+.*$")]
    values: RelativePath

    @field_validator("values")
    @classmethod
    def _inside_helm_values(cls, value: str) -> str:
        if not value.startswith("helm-values/") or ".." in value.split("/"):
            raise ValueError("must be a file below helm-values/, without '..'")
        return value


class Stack(SpecModel):
    """What is deployed: a chart whose values name the engine, the model and the engine's arguments."""

    engine: Literal["vllm"]
    chart: Chart


class Variant(SpecModel):
    """One configuration of the stack: `values` is merged over the lab's Helm values."""

    id: Name
    description: Text
    values: dict[str, Any] = Field(default_factory=dict)


class RequestShape(SpecModel):
    """Every request of a load step: exact token counts, greedy sampling, prompts from a fixture of token ids."""

    input_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    prompts: RelativePath
    timeout_s: float = Field(gt=0)

    @field_validator("prompts")
    @classmethod
    def _inside_load_tests(cls, value: str) -> str:
        if not value.startswith("load-tests/") or ".." in value.split("/"):
            raise ValueError("must be a file below load-tests/, without '..'")
        return value


class LoadStep(SpecModel):
    """A closed-loop ramp: each stage holds a number of concurrent users, who send their next request at once."""

    kind: Literal["load"]
    name: Name
    users: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    request: RequestShape


Step = LoadStep
"""One action of a lab. A second kind makes this a union discriminated by `kind`."""


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
    """One number per stage, by PromQL.

    `$selector` stands for the label matchers of the lab's namespace, `$stage` for the stage's length as a PromQL
    duration. `over: stage_end` asks once, at the end of the stage (rates and quantiles over `[$stage]`);
    `over: stage` samples through the stage and keeps the `statistic`.
    """

    name: Name
    unit: str
    promql: Text
    over: Literal["stage_end", "stage"]
    statistic: Literal["mean", "max", "min", "last"] = "last"

    @field_validator("unit")
    @classmethod
    def _known_unit(cls, value: str) -> str:
        if value not in UNITS:
            raise ValueError(f"unknown unit {value!r}; known: {', '.join(sorted(UNITS))}")
        return value

    @model_validator(mode="after")
    def _placeholders(self) -> Measure:
        used = {m for groups in re.findall(Template.pattern, self.promql) for m in groups if m}
        unknown = used - {"selector", "stage"}
        if unknown:
            raise ValueError(f"promql has unknown placeholders {sorted(unknown)}; known: $selector, $stage")
        if "selector" not in used:
            raise ValueError("promql must contain $selector, so that a shared Prometheus answers for this lab alone")
        if self.over == "stage" and "stage" in used:
            raise ValueError("$stage belongs to `over: stage_end`; a sampled measure takes a fixed range such as [30s]")
        return self

    def query(self, *, selector: str, stage_s: float) -> str:
        """The PromQL to send. `stage_s` is the stage's length in wall seconds, Prometheus's own clock."""
        return Template(self.promql).substitute(selector=selector, stage=f"{max(round(stage_s * 1000), 1)}ms")


class Finding(SpecModel):
    """A claim that the lab's own rows can confirm, refute or leave undecided.

    `throughput_ratio`: output tokens/s at `numerator_users` over those at `denominator_users`, against `threshold`.
    """

    id: Name
    kind: Literal["throughput_ratio"]
    claim: Text
    numerator_users: int = Field(ge=1)
    denominator_users: int = Field(ge=1)
    comparison: Literal["above", "below"]
    threshold: float = Field(gt=0)


class Total(SpecModel):
    """A counter of the server's that must agree with what the client counted over the whole load step."""

    client: Literal["output_tokens", "requests_ok"]
    counter: Text
    """A plain selector, no function: the increase is computed from the raw samples, resets included."""

    @field_validator("counter")
    @classmethod
    def _has_selector(cls, value: str) -> str:
        if "$selector" not in value:
            raise ValueError("counter must contain $selector, so that a shared Prometheus answers for this lab alone")
        return value


class ErrorBudget(SpecModel):
    """Bounds of the blocking asset checks."""

    error_rate: float = Field(ge=0, le=1)
    prometheus_disagreement: float = Field(gt=0, le=1)
    totals: list[Total]


class Identity(SpecModel):
    """What every lab of the year has, complete or not (catalog/labs.yaml)."""

    id: LabId
    title: Text
    phase: int = Field(ge=1, le=8)
    week: int = Field(ge=1, le=45)

    @property
    def namespace(self) -> str:
        """The lab's own namespace: `lab-06` for L06."""
        return f"lab-{self.id[1:]}"


class LabSpec(Identity):
    """A complete lab."""

    question: Text
    targets: list[Target] = Field(min_length=1)
    gpu: Gpu
    stack: Stack
    variants: list[Variant] = Field(min_length=1)
    steps: list[Step] = Field(min_length=1)
    paces: dict[Name, Pace]
    default_pace: dict[Target, Name]
    measures: list[Measure]
    findings: list[Finding]
    error_budget: ErrorBudget

    @model_validator(mode="after")
    def _references_hold(self) -> LabSpec:
        for field, names in {
            "variants": [v.id for v in self.variants],
            "steps": [s.name for s in self.steps],
            "measures": [m.name for m in self.measures],
            "findings": [f.id for f in self.findings],
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
        users = {users for step in self.steps for users in step.users}
        for finding in self.findings:
            if missing := {finding.numerator_users, finding.denominator_users} - users:
                listed = ", ".join(str(number) for number in sorted(missing))
                raise ValueError(f"findings: {finding.id} compares {listed} users, which no step has")
        return self

    def pace(self, name: str | None, target: Target) -> tuple[str, Pace]:
        """The named pace, or the target's default. Raises `KeyError` with the known names in its message."""
        chosen = name or self.default_pace[target]
        if chosen not in self.paces:
            raise KeyError(f"{self.id} has no pace {chosen!r}; it has: {', '.join(self.paces)}")
        return chosen, self.paces[chosen]
