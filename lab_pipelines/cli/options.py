"""Arguments that several commands share: their help, what a shell completes, and the refusal of a wrong one.

Doesn't belong here: arguments of one command alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipelines.cli.console import WRONG_CALL, fail
from lab_pipelines.deployment import MOST_TURNS, REPO_ROOT, TARGETS, Deployment, Target

if TYPE_CHECKING:
    from lab_pipelines.catalog.loader import Catalog
    from lab_pipelines.catalog.spec import LabSpec, Outline
    from lab_pipelines.catalog.stack import Variant
    from lab_pipelines.turns import Visit
    from resources.warehouse_core import PlainWarehouse


def _lab_ids(incomplete: str) -> list[str]:
    from lab_pipelines.catalog.loader import load_catalog

    return [lab for lab in load_catalog().ids if lab.startswith(incomplete.upper())]


def targets(incomplete: str) -> list[str]:
    return [target for target in TARGETS if target.startswith(incomplete)]


def _paces(context: typer.Context, incomplete: str) -> list[str]:
    spec = _complete_lab(context)
    return [name for name in spec.paces if name.startswith(incomplete)] if spec else []


def _variants(context: typer.Context, incomplete: str) -> list[str]:
    spec = _complete_lab(context)
    return [one.id for one in spec.variants if one.id.startswith(incomplete)] if spec else []


def _complete_lab(context: typer.Context) -> LabSpec | None:
    """The complete lab that the line being completed names, if it does."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from lab_pipelines.catalog.spec import LabSpec

    catalog = load_catalog()
    # While an option still lacks its value, the words before it are not yet parsed into parameters.
    named = [word for word in (context.params.get("lab"), *context.args) if word in catalog.ids]
    try:
        lab = catalog.lab(named[0]) if named else None
    except SpecError:
        return None
    return lab if isinstance(lab, LabSpec) else None


LabArgument = Annotated[str, typer.Argument(help="E.g. L06.", autocompletion=_lab_ids)]
TargetOption = Annotated[
    str | None,
    typer.Option(help=f"One of {', '.join(TARGETS)}; unset: LABS_TARGET, or local.", autocompletion=targets),
]
PaceOption = Annotated[
    str | None, typer.Option(help="One of the lab's paces; unset: LABS_PACE, or the target's.", autocompletion=_paces)
]
VariantOption = Annotated[
    str | None,
    typer.Option(help="Some of the lab's variants, comma-separated; unset: all.", autocompletion=_variants),
]
TurnsOption = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_TURNS, help="How many times to walk the variants; unset: LABS_TURNS, or as the lab says."
    ),
]
RehearsalOption = Annotated[
    bool, typer.Option("--rehearsal/--no-rehearsal", help="Rehearse it where no rehearsal of it is known yet.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings_for(target: str | None) -> Deployment:
    """The process's settings, with the target that was asked for on the command line. Raises `DeploymentError`."""
    if target is not None and target not in TARGETS:
        fail(f"--target {target}: expected one of {', '.join(TARGETS)}", code=WRONG_CALL)
    return Deployment.from_env(os.environ if target is None else {**os.environ, "LABS_TARGET": target})


def known_lab(catalog: Catalog, lab: str) -> LabSpec | Outline:
    """The lab, complete or not. Ends the program for one that the year does not have, with the nearest one's id."""
    if lab not in catalog.ids:
        near = nearest(lab, catalog.ids)
        meant = f"; did you mean {near}?" if near else "."
        fail(
            f"there is no lab {lab!r}{meant} The year has {catalog.ids[0]} to {catalog.ids[-1]}: labs list",
            code=WRONG_CALL,
        )
    return catalog.lab(lab)


def refuse_target(spec: LabSpec, target: Target) -> None:
    """End the program where the lab can't be served on `target`, with the reason and the targets that can."""
    if target not in spec.targets:
        needs = f" {spec.needs}." if spec.needs else ""
        fail(f"{spec.id} can't run on target {target}.{needs} It runs on: {', '.join(spec.targets)} (--target)")


def chosen_pace(spec: LabSpec, target: Target, asked: str | None) -> str:
    """The pace's name, the target's default unless one was asked for. Ends the program for an unknown one."""
    try:
        return spec.pace(asked, target)[0]
    except KeyError as error:
        fail(f"{error.args[0]} (--pace)", code=WRONG_CALL)


def chosen_variants(spec: LabSpec, target: Target, asked: str | None) -> list[Variant]:
    """The variants asked for, or all that the target can run. Ends the program for an unknown one."""
    try:
        return spec.choose_variants(asked, target)
    except KeyError as error:
        fail(f"{error.args[0]} (--variant)", code=WRONG_CALL)


def chosen_visits(spec: LabSpec, variants: Sequence[Variant], turns: int | None) -> list[Visit]:
    """The variants turn by turn, as often as asked for or as the lab says. Ends the program for too many."""
    from lab_pipelines.turns import visits

    try:
        return visits(variants, turns or spec.turns)
    except ValueError as error:
        fail(f"{error} (--turns, --variant)", code=WRONG_CALL)


def nearest(lab: str, ids: Sequence[str]) -> str | None:
    """The id that was probably meant: the same number written otherwise (`6`, `l6`, `lab-06`), else the most alike."""
    number = re.fullmatch(r"\D*(\d{1,3})", lab.strip())
    if number and (same := f"L{int(number[1]):02d}") in ids:
        return same
    return next(iter(get_close_matches(lab.upper(), ids, n=1)), None)


def dagster_home() -> Path:
    """The instance's folder: the caller's own where DAGSTER_HOME names one, else the checkout's."""
    home = Path(os.environ.get("DAGSTER_HOME") or REPO_ROOT / ".dagster").resolve()
    if not (home / "dagster.yaml").is_file():
        fail(f"{home} is not a Dagster instance: run make setup, or set DAGSTER_HOME to the folder of one")
    return home


def warehouse_of(settings: Deployment) -> PlainWarehouse:
    from resources.warehouse_core import PlainWarehouse

    return PlainWarehouse(data_dir=str(settings.data_dir), lake_url=settings.lake_url)


def day_of(option: str, given: str) -> date:
    """The day that an option names. Ends the program for anything else."""
    try:
        return date.fromisoformat(given)
    except ValueError:
        fail(f"{option} {given}: expected a day, e.g. 2026-03-01", code=WRONG_CALL)
