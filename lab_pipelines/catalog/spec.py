"""The typed lab spec: what a lab asks, what it deploys, what it does to it and what it reads.

Belongs here: the shape of `catalog/LNN.yaml` as a whole, and every rule on how its parts fit together that can be
checked without a cluster.
Doesn't belong here: the parts (identity.py, stack.py, steps.py, pace.py, measures.py, claims.py, error_budget.py),
what findings may refer to (finding_references.py), reading files (loader.py), or deploying and measuring (assets/,
resources/).

Every duration in a spec is in *stack seconds*: the time of the stack under test. See `Pace.time_scale`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lab_pipelines.catalog.claims import DEPLOY, Finding
from lab_pipelines.catalog.error_budget import ErrorBudget
from lab_pipelines.catalog.finding_references import require_findings_hold
from lab_pipelines.catalog.identity import Identity
from lab_pipelines.catalog.measures import Figure, Measure
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.slo import INTERACTIVE, Slo
from lab_pipelines.catalog.stack import Nodes, Stack, Variant
from lab_pipelines.catalog.steps import AnyStep, FireAlertStep, LoadStep, ReclaimsStep, Step
from lab_pipelines.catalog.strict import Name, Text
from lab_pipelines.deployment import MOST_TURNS, Target
from lab_pipelines.digest import canonical_digest


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
        require_findings_hold(
            self.findings,
            variants=self.variants,
            steps=self.flat_steps,
            measures=self.measures,
            turns=self.turns,
            objective=self.objective,
        )
        return self

    @property
    def digest(self) -> str:
        """By which a session names the spec that it ran."""
        return canonical_digest(self.model_dump(mode="json"))

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
