"""What a lab reads of its run, by PromQL or by SQL, and the figures that are drawn from it.

Doesn't belong here: asking (assets/measures.py, resources/telemetry.py) and drawing (lab_pipelines/report/figures.py).
"""

from __future__ import annotations

from string import Template
from typing import Literal

from pydantic import Field, field_validator, model_validator

from lab_pipelines.catalog.fields import RelativePath, below, checked_promql
from lab_pipelines.catalog.strict import Name, SpecModel, Text
from lab_pipelines.catalog.units import UNITS


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
