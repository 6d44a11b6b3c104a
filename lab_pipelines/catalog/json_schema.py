"""JSON Schemas of the catalogue's files, for editors: python -m lab_pipelines.catalog.json_schema

Made from the models that the validation uses, so an editor completes and underlines by the same rules, as far as a JSON
Schema can say them. Doesn't belong here: the rules (spec.py, calendar.py), or what only several files together tell
(validation.py).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lab_pipelines.catalog.calendar import Calendar
from lab_pipelines.catalog.spec import LabSpec, Outline

SCHEMA_DIR = Path(__file__).parent / "schema"


def documents() -> dict[str, str]:
    """File name → text, deterministic."""
    return {
        "lab.json": _text(TypeAdapter(LabSpec | Outline), "A lab of the year: complete, or an outline with `missing`"),
        "calendar.json": _text(TypeAdapter(Calendar), "The year's calendar"),
    }


def _text(model: TypeAdapter[Any], title: str) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **model.json_schema(),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    SCHEMA_DIR.mkdir(exist_ok=True)
    for name, text in documents().items():
        (SCHEMA_DIR / name).write_text(text, encoding="utf-8")
        print(SCHEMA_DIR / name)


if __name__ == "__main__":
    main()
