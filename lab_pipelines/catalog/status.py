"""Which labs can run, and what the others lack, as a table for people.

Doesn't belong here: whether a lab has results (the warehouse knows).
"""

from __future__ import annotations

from lab_pipelines.catalog.loader import Catalog, SpecError
from lab_pipelines.catalog.spec import Outline


def labs_markdown(catalog: Catalog) -> str:
    """One row per lab: where it runs, or what is missing. A lab whose file is wrong says so instead of failing."""
    lines = ["| Lab | Title | Week | Runs on | Missing |", "| --- | --- | --- | --- | --- |"]
    for lab in catalog.ids:
        try:
            found = catalog.lab(lab)
        except SpecError as error:
            lines.append(f"| {lab} | | | | {_cell(str(error))} |")
            continue
        runs_on, missing = ("", found.missing) if isinstance(found, Outline) else (", ".join(found.targets), [])
        cells = [lab, found.title, str(found.week), runs_on, "; ".join(missing)]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
