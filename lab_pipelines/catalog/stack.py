"""What a lab deploys: the nodes, the components with their charts, and the variants of their values.

Doesn't belong here: whether a variant's names exist in its lab (spec.py), or running a component (resources/).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lab_pipelines.catalog.fields import Overrides, RelativePath, below, regular_expression
from lab_pipelines.catalog.strict import Name, SpecModel, Text, matching
from lab_pipelines.deployment import Target


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


class Chart(SpecModel):
    """The upstream Helm chart, pinned, and the lab's values for it (relative to the repository)."""

    name: Name
    repository: Text
    version: Annotated[str, matching(r"^[0-9]+\.[0-9]+\.[0-9]+.*$", "a version such as 0.1.12")]
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
