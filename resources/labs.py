"""Which labs there are, at which pace they run here, and on which target: what every asset asks first.

Doesn't belong here: the catalog's own rules (lab_pipelines/catalog/).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from dagster import ConfigurableResource, Failure

from lab_pipelines.catalog.loader import CATALOG_DIR, LabNotWrittenError, SpecError, load_catalog
from lab_pipelines.catalog.pace import Pace
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Variant
from lab_pipelines.deployment import Target
from lab_pipelines.load_stages import load_stages
from lab_pipelines.turns import Visit, visits


class Labs(ConfigurableResource):
    """The catalog as this deployment sees it."""

    target: str
    pace: str | None = None
    """One of the spec's paces; unset: the target's default. `LABS_PACE` sets it for a whole process."""
    variant: str | None = None
    """Some of the spec's variants, comma-separated; unset: all that this target can run. `LABS_VARIANT` sets it."""
    turns: int | None = None
    """How many times to walk them; unset: as the spec says. `LABS_TURNS` sets it."""
    budget_usd: str | None = None
    """The most that one run may cost, a decimal number; unset: no limit. `LABS_BUDGET_USD` sets it."""
    catalog_dir: str = str(CATALOG_DIR)

    def spec(self, lab: str) -> LabSpec:
        """The lab's spec, fit for this target. Raises `Failure`, whose description says what to do."""
        try:
            spec = load_catalog(Path(self.catalog_dir)).spec(lab)
        except (LabNotWrittenError, SpecError) as error:
            raise Failure(str(error), allow_retries=False) from None
        if self.target not in spec.targets:
            needs = f" {spec.needs}." if spec.needs else ""
            raise Failure(
                f"{lab} can't run on target {self.target}.{needs} It runs on: {', '.join(spec.targets)} "
                "(set LABS_TARGET)",
                allow_retries=False,
            )
        return spec

    def chosen_variants(self, spec: LabSpec) -> list[Variant]:
        """The variants to walk, in the spec's order. Raises `Failure` that names those there are."""
        try:
            return spec.choose_variants(self.variant, cast(Target, self.target))
        except KeyError as error:
            raise Failure(f"{error.args[0]} (set LABS_VARIANT)", allow_retries=False) from None

    def visits(self, spec: LabSpec) -> list[Visit]:
        """The variants turn by turn, as a run walks them. Raises `Failure` as `chosen_variants`, and for too many."""
        try:
            return visits(self.chosen_variants(spec), self.turns or spec.turns)
        except ValueError as error:
            raise Failure(f"{error} (set LABS_TURNS or LABS_VARIANT)", allow_retries=False) from None

    def pace_of(self, spec: LabSpec) -> tuple[str, Pace]:
        """The pace's name and what it is. Raises `Failure` for an unknown one."""
        try:
            return spec.pace(self.pace, cast(Target, self.target))
        except KeyError as error:
            raise Failure(f"{error.args[0]} (set LABS_PACE)", allow_retries=False) from None

    def require_loads(self, spec: LabSpec) -> None:
        """Raise `Failure` for a load step without stages at this pace, such as one whose trace is missing or broken.

        Asked before a stack comes up, and is paid for.
        """
        _, pace = self.pace_of(spec)
        for step in spec.load_steps:
            try:
                load_stages(step, pace)
            except ValueError as error:
                raise Failure(f"{spec.id}: {step.name}: {error}", allow_retries=False) from None
