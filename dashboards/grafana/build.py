"""Writes the dashboards' JSON: python -m dashboards.grafana.build

The JSON is committed, because Grafana reads it and a reviewer sees in it what a change does. A test compares the two.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent


def documents() -> dict[str, str]:
    """The JSON text of every dashboard by its file's name. Pure: the same code gives the same bytes."""
    found = {}
    of_labs = sorted(path.stem for path in FOLDER.glob("l[0-9][0-9]_*.py"))
    for module in [*of_labs, "gpu_serving", "cost"]:
        dashboard = importlib.import_module(f"{__package__}.{module}").build()
        found[f"{dashboard.uid}.json"] = json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
    return found


def main() -> None:
    """Write every dashboard, and remove the JSON of those that are no more."""
    made = documents()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for stale in {path.name for path in FOLDER.glob("*.json")} - made.keys():
        (FOLDER / stale).unlink()
    print(f"wrote {len(made)} dashboards to {FOLDER}")


if __name__ == "__main__":
    main()
