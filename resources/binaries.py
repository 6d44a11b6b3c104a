"""Finds the programs that the local target runs: Prometheus, promtool and Alertmanager.

Doesn't belong here: installing them (scripts/setup.sh) or starting them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab_pipelines.deployment import REPO_ROOT

FETCHED = REPO_ROOT / ".tools" / "prometheus" / "usr" / "bin"
"""Where the set-up unpacks the system's packages when the machine doesn't have them installed."""

_NAMES = {"alertmanager": ("alertmanager", "prometheus-alertmanager")}
"""Programs that some systems call by another name: Debian's Alertmanager carries its package's."""
_PACKAGES = {"alertmanager": "prometheus-alertmanager"}


class BinaryNotFoundError(RuntimeError):
    """A program is missing. The message says how to get it."""


def find(name: str) -> Path:
    """Path of `name`: from PATH, else from the set-up's own copy. Raises `BinaryNotFoundError`."""
    for path in (None, str(FETCHED)):
        for called in _NAMES.get(name, (name,)):
            if found := shutil.which(called, path=path):
                return Path(found)
    package = _PACKAGES.get(name, "prometheus")
    raise BinaryNotFoundError(
        f"{name} is not installed: run `make setup`, or `sudo apt-get install {package}`, and try again"
    )
