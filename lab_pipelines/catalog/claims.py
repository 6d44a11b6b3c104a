"""What a lab may claim: each kind of finding, and the stages that it means.

Doesn't belong here: whether a claim's names exist in its lab (finding_references.py), or its verdict
(assets/findings.py, lab_pipelines/statistics/).
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from lab_pipelines.catalog.strict import Name, SpecModel, Text


class Claim(SpecModel):
    """What every finding has: a claim that the lab's own rows can confirm, refute or leave undecided."""

    id: Name
    claim: Text

    @property
    def by_interval(self) -> bool:
        """Whether it is judged on an interval, which may miss the truth by chance. All such findings of a lab share the
        chance that any of theirs does."""
        return False

    @property
    def sides(self) -> tuple[Sample, ...]:
        """The stages that it names one by one."""
        return ()

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures that it is judged on."""
        return ()


Latency = Literal[
    "ttft_p50",
    "ttft_p95",
    "ttft_p99",
    "tpot_p50",
    "tpot_p95",
    "e2e_p50",
    "e2e_p95",
    "e2e_p99",
    "normalised_p50",
]
Quantity = Literal["throughput", Latency, "error_rate", "goodput", "goodput_rate"]
"""What the client saw in a stage: output tokens per second, a quantile of its requests' latencies (normalised: over the
output tokens), the share that failed, the share and the rate of those that kept the lab's objective."""


class Sample(SpecModel):
    """Which stage's rows one side of a comparison takes. Each field may be left out where there is but one choice."""

    variant: Name | None = None
    step: Name | None = None
    load: float | None = Field(default=None, gt=0)
    """Users of a closed loop, requests of a burst, or requests per second of a rate."""
    shape: int | None = Field(default=None, ge=0)
    """Position of a request's shape in the step's `requests`; None: all shapes together."""


class Ratio(Claim):
    """A quantity of one stage over that of another, of the same variant or not, against `threshold`.

    Give exactly one of `quantity`, whose rows bring an interval, and `measure`, a number of the stage without one.
    """

    kind: Literal["ratio"]
    quantity: Quantity | None = None
    measure: Name | None = None
    numerator: Sample
    denominator: Sample
    comparison: Literal["above", "below"]
    threshold: float = Field(gt=0)

    @property
    def by_interval(self) -> bool:
        return self.quantity is not None

    @property
    def sides(self) -> tuple[Sample, ...]:
        return self.numerator, self.denominator

    @property
    def measures(self) -> tuple[str, ...]:
        return () if self.measure is None else (self.measure,)

    @model_validator(mode="after")
    def _one_source(self) -> Ratio:
        _one_of(self.quantity, self.measure)
        if self.numerator == self.denominator:
            raise ValueError("numerator and denominator are the same stage")
        _shapes_hold(self.quantity, *self.sides)
        return self


class Difference(Claim):
    """A quantity of one stage minus that of another against `threshold`, in the quantity's unit."""

    kind: Literal["difference"]
    quantity: Quantity
    minuend: Sample
    subtrahend: Sample
    comparison: Literal["above", "below"]
    threshold: float

    @property
    def by_interval(self) -> bool:
        return True

    @property
    def sides(self) -> tuple[Sample, ...]:
        return self.minuend, self.subtrahend

    @model_validator(mode="after")
    def _two_stages(self) -> Difference:
        if self.minuend == self.subtrahend:
            raise ValueError("minuend and subtrahend are the same stage")
        _shapes_hold(self.quantity, *self.sides)
        return self


def _one_of(quantity: str | None, measure: str | None) -> None:
    if (quantity is None) == (measure is None):
        raise ValueError("give exactly one of quantity and measure")


def _shapes_hold(quantity: str | None, *sides: Sample) -> None:
    if any(side.shape is not None for side in sides) and quantity not in get_args(Latency):
        raise ValueError("shape: only latencies can be told apart by the request's shape")


class Neighbours(Claim):
    """What claims about neighbours have in common: a quantity, and which requests it is of.

    Each field that is left out must have but one choice. Neighbours are compared by their ratio, later over earlier,
    with intervals that hold all at once.
    """

    quantity: Quantity
    step: Name | None = None
    shape: int | None = Field(default=None, ge=0)
    comparison: Literal["above", "below"]
    threshold: float = Field(default=1.0, gt=0)

    @property
    def by_interval(self) -> bool:
        return True


class Monotone(Neighbours):
    """From each load of a step to the next the quantity's ratio is above (it rises) or below (it falls) `threshold`."""

    kind: Literal["monotone"]
    variant: Name | None = None


class Ordering(Neighbours):
    """From each of the `variants` to the next, as they are listed, the ratio is above or below `threshold`."""

    kind: Literal["ordering"]
    variants: list[Name] = Field(min_length=2)
    load: float | None = Field(default=None, gt=0)


class Cliff(Neighbours):
    """From the load `after` to the next one the ratio is above or below `threshold`, and between no other two loads."""

    kind: Literal["cliff"]
    variant: Name | None = None
    after: float = Field(gt=0)


class Paired(Claim):
    """A quantity of `variant` over that of the variant `over`, in pairs of the same turn, against `threshold`.

    One pair per turn, at the same step and load: the interval is that of the turns' spread, and needs no assumption on
    the requests of one. Give exactly one of `quantity` and `measure`.
    """

    kind: Literal["paired"]
    quantity: Quantity | None = None
    measure: Name | None = None
    variant: Name
    over: Name
    step: Name | None = None
    load: float | None = Field(default=None, gt=0)
    shape: int | None = Field(default=None, ge=0)
    comparison: Literal["above", "below"]
    threshold: float = Field(default=1.0, gt=0)

    @property
    def by_interval(self) -> bool:
        return True

    @property
    def sides(self) -> tuple[Sample, ...]:
        return self.sample(self.variant), self.sample(self.over)

    @property
    def measures(self) -> tuple[str, ...]:
        return () if self.measure is None else (self.measure,)

    @model_validator(mode="after")
    def _one_source(self) -> Paired:
        _one_of(self.quantity, self.measure)
        if self.variant == self.over:
            raise ValueError(f"over: {self.over} is the variant itself")
        _shapes_hold(self.quantity, *self.sides)
        return self

    def sample(self, variant: str) -> Sample:
        """The stage of one of the two variants."""
        return Sample(variant=variant, step=self.step, load=self.load, shape=self.shape)


class Bound(Claim):
    """A quantity of a stage, or every value of a measure, lies above or below `threshold`.

    Of a `quantity`, whose rows bring an interval, `stage` says which one, and may be left out where there is but one. A
    `measure` has a value per stage or one for the run, of all variants unless `variant` names one.
    """

    kind: Literal["bound"]
    quantity: Quantity | None = None
    stage: Sample | None = None
    measure: Name | None = None
    variant: Name | None = None
    comparison: Literal["above", "below"]
    threshold: float

    @property
    def by_interval(self) -> bool:
        return self.quantity is not None

    @property
    def sides(self) -> tuple[Sample, ...]:
        return () if self.quantity is None else (self.stage or Sample(),)

    @property
    def measures(self) -> tuple[str, ...]:
        return () if self.measure is None else (self.measure,)

    @model_validator(mode="after")
    def _one_source(self) -> Bound:
        _one_of(self.quantity, self.measure)
        if self.measure is not None and self.stage is not None:
            raise ValueError("stage: belongs to a quantity; a measure has its own stages")
        if self.quantity is not None and self.variant is not None:
            raise ValueError("variant: belongs to a measure; give that of a quantity in stage")
        _shapes_hold(self.quantity, *self.sides)
        return self


class Agreement(Claim):
    """Two measures of the same thing differ by at most `tolerance`, relative to `of`, in every stage or in the run."""

    kind: Literal["agreement"]
    measure: Name
    of: Name
    tolerance: float = Field(gt=0, lt=1)

    @property
    def measures(self) -> tuple[str, ...]:
        return self.measure, self.of


DEPLOY = "deploy"
"""Name and kind of the event that says whether a variant came up as its spec expects."""


class Outcomes(Claim):
    """Every step named ended as the spec expects: condition held, alert notified, manifest accepted or rejected.

    `deploy` names the coming up of the variant itself. In all variants, unless `variant` names one.
    """

    kind: Literal["outcomes"]
    variant: Name | None = None
    steps: list[Name] = Field(min_length=1)


Finding = Annotated[
    Ratio | Difference | Monotone | Ordering | Cliff | Paired | Bound | Agreement | Outcomes,
    Field(discriminator="kind"),
]


def samples_of(finding: Monotone | Ordering | Cliff, loads: list[float] | list[float | None]) -> list[Sample]:
    """The stages that a claim about neighbours compares, in order; `loads` are its step's."""
    if isinstance(finding, Ordering):
        return [
            Sample(variant=name, step=finding.step, load=finding.load, shape=finding.shape) for name in finding.variants
        ]
    return [Sample(variant=finding.variant, step=finding.step, load=load, shape=finding.shape) for load in loads]
