"""What the catalogue costs: the commands that read all of it, and the code location with ten times as many labs.

The code location is imported from two copies of the checkout, one with every lab ten times under further ids, by turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT

NAME = "catalogue"
TIMES = 10
COMMANDS = {"list": 1.0, "validate": 3.0}
"""Bound of each command in seconds."""
_COPIED = ("lab_pipelines", "assets", "resources", "warehouse/schema", "warehouse/views")


def measure(*, pairs: int) -> list[Figure]:
    """Each command and each import `pairs` times, after one uncounted time."""
    commands = [
        Figure(NAME, f"labs {name}, median", _median_s([_labs(), name], REPO_ROOT, pairs), "s", at_most=bound)
        for name, bound in COMMANDS.items()
    ]
    with TemporaryDirectory(prefix="labs-bench-") as folder:
        once, often = Path(folder) / "once", Path(folder) / "often"
        labs, many = _copied(once, times=1), _copied(often, times=TIMES)
        _import_s(once)
        _import_s(often)
        taken = [(_import_s(once), _import_s(often)) for _ in range(pairs)]
    few_s, many_s = (median(column) for column in zip(*taken, strict=True))
    return [
        *commands,
        Figure(NAME, f"code location, {labs} labs, median", few_s, "s"),
        Figure(NAME, f"code location, {many} labs, median", many_s, "s"),
        Figure(NAME, "ratio of the medians", many_s / few_s, "times", at_most=1.5, note=f"{pairs} pairs, by turns"),
    ]


def _labs() -> str:
    return str(Path(sys.executable).with_name("labs"))


def _copied(root: Path, *, times: int) -> int:
    """Copy what the code location reads, with every lab `times` times; the number of labs."""
    for folder in _COPIED:
        shutil.copytree(REPO_ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    catalog = root / "lab_pipelines" / "catalog"
    for path in sorted(catalog.glob("L[0-9][0-9].yaml")):
        text = path.read_text(encoding="utf-8")
        for digit in range(1, times):
            further = f"{path.stem}{digit}"
            (catalog / f"{further}.yaml").write_text(text.replace(f"id: {path.stem}\n", f"id: {further}\n"), "utf-8")
    return len(list(catalog.glob("L[0-9][0-9]*.yaml")))


def _import_s(root: Path) -> float:
    return _run_s([sys.executable, "-c", "import lab_pipelines.definitions"], root)


def _median_s(command: list[str], folder: Path, times: int) -> float:
    _run_s(command, folder)
    return median(_run_s(command, folder) for _ in range(times))


def _run_s(command: list[str], folder: Path) -> float:
    """Wall seconds of `command` in `folder`, whose own packages come first. Byte code is written, as by the set-up."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(
        command,
        cwd=folder,
        env={**environ, "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began
