"""Which labs can run, and what the others lack, as a table for people.

It is made each time the code location loads, so it reads of each file only the four fields that it shows, which at the
top level of a mapping begin at a line's start; whole specs took 0.9 ms each. It judges nothing: `labs validate` does.
Doesn't belong here: whether a lab has results (the warehouse knows).
"""

from __future__ import annotations

import re

import yaml

from lab_pipelines.catalog.loader import Catalog

_SHOWN = re.compile(r"^(?:title|week|targets|missing):.*\n(?:(?:[ #-].*)?\n)*", re.MULTILINE)


def labs_markdown(catalog: Catalog) -> str:
    """One row per lab: where it runs, or what is missing. A file that can't be read says so instead of failing."""
    lines = ["| Lab | Title | Week | Runs on | Missing |", "| --- | --- | --- | --- | --- |"]
    for lab in catalog.ids:
        try:
            text = catalog.path(lab).read_text(encoding="utf-8")
            found = yaml.load(
                "".join(_SHOWN.findall(f"{text}\n")), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            )
            cells = [lab, str(found["title"]), str(found["week"]), ", ".join(found.get("targets") or ())]
            cells.append("; ".join(found.get("missing") or ()))
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            cells = [lab, "", "", "", "its file can't be read; `labs validate` says why"]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
