"""What every lab of the year has, complete or not: its number, week, question, nodes, and errata of its letter.

Doesn't belong here: what makes a lab complete (spec.py), or the dates of its week (calendar.py).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lab_pipelines.catalog.stack import Nodes
from lab_pipelines.catalog.strict import Name, SpecModel, Text, matching

LabId = Annotated[str, matching(r"^L[0-9]{2,3}$", "a lab such as L06")]


class Erratum(SpecModel):
    """Where the curriculum's letter is wrong or out of date: what it says, what holds, and how that is known."""

    letter: Text
    today: Text
    source: Text
    """A public page or file, or the part of the curriculum that contradicts the letter."""


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
    namespace: Annotated[str, matching(r"^lab-[a-z0-9-]{1,40}$", "a namespace such as lab-06")] = ""
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
