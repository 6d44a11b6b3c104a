"""Pinned baselines as rows, so that questions in SQL see them: the table `baselines`, which `baseline_deltas` reads.

Doesn't belong here: the files themselves, which are the truth (baseline.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from lab_pipelines.baseline import BASELINES_DIR, UNITS, Baseline, pinned

Row = dict[str, Any]

_OF_THE_RUN = ("lab", "run_id", "target", "engine", "pace", "time_scale", "provenance", "digest", "spec_digest")
_OF_A_VARIANT = ("values_digest", "model", "sku", "nodes")
_OF_A_STAGE = ("step", "stage", "users", "offered_per_s")


class Publishes(Protocol):
    """What this module needs of a warehouse."""

    def publish(
        self, table: str, rows: Sequence[Row], *, target: str, lab: str, run_id: str, part: str | None = None
    ) -> Path: ...


def publish_baselines(warehouse: Publishes, directory: Path = BASELINES_DIR) -> list[Baseline]:
    """Publish every pinned file that the warehouse doesn't have yet; the files that there are.

    Raises `BaselineError` for one that isn't what was pinned, and the warehouse's own error where it holds another
    file of that name and run.
    """
    known = pinned(directory)
    for one in known:
        of = {name: one.content[name] for name in ("target", "lab", "run_id")}
        warehouse.publish("baselines", baseline_rows(one), **of, part=one.path.stem)
    return known


def baseline_rows(baseline: Baseline) -> list[Row]:
    """`baselines`: one row per stage. A number that the file doesn't have is None. Pure, but for the time."""
    content: Mapping[str, Any] = baseline.content
    common = {
        **{name: content[name] for name in _OF_THE_RUN},
        "recorded_at": datetime.now(UTC),
        "file": baseline.path.name,
        "pinned_at": datetime.fromisoformat(content["pinned_at"]),
    }
    return [
        {
            **common,
            "variant": name,
            **{column: variant[column] for column in _OF_A_VARIANT},
            # Files from before loads had rates name users alone.
            **{column: stage.get(column) for column in (*_OF_A_STAGE, *UNITS)},
        }
        for name, variant in content["variants"].items()
        for stage in variant["stages"]
    ]
