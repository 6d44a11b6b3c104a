"""Finds the programs that the local target runs: Prometheus and promtool.

Doesn't belong here: installing them (scripts/setup.sh) or starting them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab_pipelines.deployment import REPO_ROOT

FETCHED = REPO_ROOT / ".tools" / "prometheus" / "usr" / "bin"
"""Where the set-up unpacks the system's package when the machine doesn't have it installed."""


class BinaryNotFoundError(RuntimeError):
    """A program is missing. The message says how to get it."""


def find(name: str) -> Path:
    """Path of `name`: from PATH, else from the set-up's own copy. Raises `BinaryNotFoundError`."""
    found = shutil.which(name) or shutil.which(name, path=str(FETCHED))
    if found is None:
        raise BinaryNotFoundError(
            f"{name} is not installed: run `make setup`, or `sudo apt-get install prometheus`, and try again"
        )
    return Path(found)
