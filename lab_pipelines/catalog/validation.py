"""Everything about the year that can be wrong on paper: all specs, what they refer to, and the rules between files.

Belongs here: collecting every problem instead of stopping at the first; the rules between specs, calendar and prices.
Doesn't belong here: rules of one spec (spec.py), reading YAML (loader.py), the files that specs refer to
(references.py), or anything that needs a cluster, a network or Dagster. `labs validate` prints what this finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from lab_pipelines.catalog.calendar import Calendar
from lab_pipelines.catalog.loader import CATALOG_DIR, WHOLE_FILE, Problem, SpecError, read_lab, read_model, shown
from lab_pipelines.catalog.prices import PriceSheet
from lab_pipelines.catalog.references import Files, LabFile, referred_files, values_and_manifests
from lab_pipelines.deployment import REPO_ROOT

Read = TypeVar("Read")


def validate_catalog(directory: Path = CATALOG_DIR, *, root: Path = REPO_ROOT) -> list[Problem]:
    """Every problem of the catalog in `directory` and of the files below `root` that it refers to.

    Empty if all is sound. Reads local files only. Goes on after each problem; of a lab whose spec is wrong in itself,
    what it refers to is not looked at.
    """
    problems: list[Problem] = []

    def attempt(read: Callable[[], Read]) -> Read | None:
        try:
            return read()
        except SpecError as error:
            problems.extend(error.problems)
            return None

    calendar = attempt(lambda: read_model(directory / "calendar.yaml", Calendar))
    prices = attempt(lambda: read_model(directory / "prices.yaml", PriceSheet))
    paths = sorted(directory.glob("L[0-9][0-9]*.yaml"))
    problems += _files_that_are_not_read(directory, paths)
    labs: list[LabFile] = []
    for path in paths:
        if found := attempt(lambda path=path: read_lab(path)):
            labs.append(LabFile(found[0], path, found[1]))

    files, ids = Files(root), {path.stem for path in paths}
    namespaces: dict[str, str] = {}
    for lab in labs:
        problems += _place_in_the_year(lab, calendar, ids)
        problems += _nodes(lab, prices)
        other = namespaces.setdefault(lab.spec.namespace, lab.spec.id)
        if other != lab.spec.id:
            problems.append(lab.problem(["namespace"], f"{lab.spec.namespace} is already the namespace of {other}"))
        problems += referred_files(lab, files)
    # A spec that can't be read, or that names a wrong file, leaves a values file unnamed: one mistake, one line.
    problems += values_and_manifests(files, every_lab_names_its_files=not problems)
    return problems


def _files_that_are_not_read(directory: Path, labs: list[Path]) -> Iterator[Problem]:
    if not labs:
        yield Problem(shown(directory), 1, WHOLE_FILE, "has no lab; expected files L01.yaml, L02.yaml, …")
    known = {*labs, directory / "calendar.yaml", directory / "prices.yaml"}
    for path in sorted(directory.glob("*.y*ml")):
        if path not in known:
            message = "is read by nobody; a lab's file is named by its id, such as L07.yaml"
            yield Problem(shown(path), 1, WHOLE_FILE, message)


def _place_in_the_year(lab: LabFile, calendar: Calendar | None, ids: set[str]) -> Iterator[Problem]:
    for index, other in enumerate(lab.spec.builds_on):
        if other not in ids:
            yield lab.problem(["builds_on", index], f"there is no lab {other}")
    if calendar is None:
        return
    if lab.spec.phase > len(calendar.phases):
        yield lab.problem(["phase"], f"calendar.yaml has {len(calendar.phases)} phases, but no phase {lab.spec.phase}")
        return
    phase = calendar.phase(lab.spec.phase)
    if not phase.first_week <= lab.spec.week <= phase.last_week:
        message = f"phase {phase.number} has the weeks {phase.first_week} to {phase.last_week}, but not {lab.spec.week}"
        yield lab.problem(["week"], message)
    elif lab.spec.week > len(calendar.weeks):
        yield lab.problem(["week"], f"calendar.yaml has {len(calendar.weeks)} weeks, but no week {lab.spec.week}")


def _nodes(lab: LabFile, prices: PriceSheet | None) -> Iterator[Problem]:
    if prices is None:
        return
    for index, nodes in enumerate(lab.spec.nodes):
        sku = prices.skus.get(nodes.sku)
        if sku is None:
            message = f"prices.yaml has no SKU {nodes.sku!r}; it has: {', '.join(prices.offered())}"
            yield lab.problem(["nodes", index, "sku"], message)
        elif sku.retired is not None:
            message = f"Azure retired {nodes.sku} on {sku.retired}; offered are: {', '.join(prices.offered())}"
            yield lab.problem(["nodes", index, "sku"], message)
        elif nodes.gpus > sku.gpus:
            yield lab.problem(["nodes", index, "gpus"], f"one {nodes.sku} has {sku.gpus} GPUs, but not {nodes.gpus}")
