"""What loading the code location costs, against `import dagster` alone.

The two are started by turns, because a machine's speed drifts over the seconds that such a comparison takes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

from benchmarks.figures import Figure
from lab_pipelines.deployment import REPO_ROOT

NAME = "import"
AT_MOST = 1.3
CODE_LOCATION, DAGSTER = "lab_pipelines.definitions", "dagster"


def measure(*, pairs: int) -> list[Figure]:
    """Import both `pairs` times, after one uncounted time that warms the page cache and writes the byte code."""
    _import_s(CODE_LOCATION)
    _import_s(DAGSTER)
    taken = [(_import_s(CODE_LOCATION), _import_s(DAGSTER)) for _ in range(pairs)]
    ours, theirs = (median(column) for column in zip(*taken, strict=True))
    note = f"{pairs} pairs, by turns, each in a process of its own"
    return [
        Figure(NAME, f"import {CODE_LOCATION}, median", ours, "s"),
        Figure(NAME, f"import {DAGSTER}, median", theirs, "s"),
        Figure(NAME, "ratio of the medians", ours / theirs, "times", at_most=AT_MOST, note=note),
        Figure(NAME, "median of the pairs' ratios", median(a / b for a, b in taken), "times", at_most=AT_MOST),
    ]


def _import_s(module: str) -> float:
    """Wall seconds of one interpreter that imports `module` and ends."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=REPO_ROOT, stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began
