"""A catalog of one's own for a test: L06's spec, also under other names and with other paces.

Belongs here: making such a folder. The code location that reads it: two_labs_definitions.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab_pipelines.catalog.loader import CATALOG_DIR


def copied_catalog(folder: Path, *, labs: Sequence[str], smoke: Mapping[str, Any] | None = None) -> Path:
    """Write `labs` (L06 or later) into `folder`, each a copy of L06; `smoke` changes fields of their pace `smoke`."""
    folder.mkdir(parents=True)
    spec = yaml.safe_load((CATALOG_DIR / "L06.yaml").read_text(encoding="utf-8"))
    spec["paces"]["smoke"].update(smoke or {})
    for lab in labs:
        text = yaml.safe_dump({**spec, "id": lab}, sort_keys=False)
        (folder / f"{lab}.yaml").write_text(text, encoding="utf-8")
    return folder
