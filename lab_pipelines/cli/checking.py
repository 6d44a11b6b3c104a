"""`labs validate`: every problem of the catalogue and of the files that it refers to, one line each.

Doesn't belong here: the rules (lab_pipelines/catalog/validation.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab_pipelines.cli.console import WRONG_CALL, fail, print_json
from lab_pipelines.cli.options import JsonOption
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.wording import printable
from lab_pipelines.words import counted

CATALOGUE_FILES = ("helm-values", "load-tests/prompts", "load-tests/traces", "warehouse/measures")
"""Folders of the repository that specs refer to."""


def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Specs, values or other files of the catalogue; unset: all of it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check specs, calendar, prices, Helm values and what they refer to; each problem is one line."""
    from lab_pipelines.catalog.loader import CATALOG_DIR
    from lab_pipelines.catalog.validation import validate_catalog

    if missing := [str(file) for file in files or [] if not file.is_file()]:
        fail(f"no such file: {', '.join(missing)}", code=WRONG_CALL)
    wanted = {file.resolve() for file in files or []}
    folders = sorted({_catalogue_of(file, CATALOG_DIR) for file in wanted}) or [CATALOG_DIR]
    # Always the whole catalogue: a file may be wrong because of another one.
    problems = [problem for folder in folders for problem in validate_catalog(folder)]
    if wanted:
        problems = [problem for problem in problems if (REPO_ROOT / problem.path).resolve() in wanted]
    labs = sum(len(list(folder.glob("L[0-9][0-9].yaml"))) for folder in folders)
    values = len(list((REPO_ROOT / "helm-values").rglob("*.yaml")))
    if as_json:
        found = [{"path": one.path, "line": one.line, "field": one.field, "message": one.message} for one in problems]
        print_json({"labs": labs, "values_files": values, "problems": found})
    else:
        for problem in problems:
            typer.echo(printable(str(problem)))
    if problems:
        fail(counted(len(problems), "problem"))
    if not as_json:
        whole = f"{labs} labs, calendar, prices, {values} files of Helm values and manifests"
        typer.echo(f"{', '.join(map(str, files)) if files else whole}: all valid")


def _catalogue_of(file: Path, catalogue: Path) -> Path:
    """The folder of the catalogue that reads `file`. Ends the program for a file that none reads."""
    if (file.parent / "calendar.yaml").is_file():
        return file.parent
    if any(file.is_relative_to(REPO_ROOT / folder) for folder in CATALOGUE_FILES):
        return catalogue
    fail(
        f"{file} is no file of a catalogue: it lies neither beside a calendar.yaml, nor below "
        f"{', '.join(CATALOGUE_FILES)}",
        code=WRONG_CALL,
    )
