"""A year in which every lab was rehearsed, made up: for tests that need rows of many labs.

Doesn't belong here: rows of one run (rows/runs.py), or anything that runs a lab.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lab_pipelines.catalog.spec import LabSpec
from resources.warehouse import Warehouse
from tests.support.rows.common import Row
from tests.support.rows.measures import summary_row
from tests.support.rows.results import finding_row
from tests.support.rows.runs import variants_run
from tests.support.warehouses import publish_run

USERS = (1, 8, 16, 32)
_TARGET = "rehearsal"


def publish_year(warehouse: Warehouse, labs: Iterable[LabSpec]) -> None:
    """A run of each lab, without what came of its claims."""
    for lab in labs:
        publish_run(warehouse, lab_tables(lab))


def publish_findings(warehouse: Warehouse, labs: Iterable[LabSpec], verdict: str) -> None:
    """That each claim of the runs ended as `verdict`."""
    for lab in labs:
        publish_run(warehouse, {"findings": findings(lab, verdict)})


def lab_tables(lab: LabSpec) -> dict[str, list[Row]]:
    """Every table but the findings: the lab's variants under one ramp, and 7.25 for each measure of the whole run."""
    up = [variant.id for variant in lab.variants if variant.refused is None]
    refused = {variant.id: "CUDA out of memory" for variant in lab.variants if variant.refused is not None}
    shared = {"target": _TARGET, "lab": lab.id, "run_id": f"run-{lab.id}", "session_id": f"session-{lab.id}"}
    tables = variants_run(dict.fromkeys(up, 1.0), refused=refused, users=USERS, **shared)
    tables["metric_summaries"] += [
        summary_row(
            **_first(lab) | ({"variant": "all"} if measure.over == "variants" else {}),
            **{"step": None, "stage": None, "users": None},
            **{"measure": measure.name, "unit": measure.unit, "value": 7.25},
        )
        for measure in lab.measures
        if measure.over not in ("stage", "stage_end")
    ]
    del tables["findings"]
    return tables


def findings(lab: LabSpec, verdict: str) -> list[Row]:
    """One for each of the lab's claims."""
    return [
        finding_row(**_first(lab), finding=finding.id, claim=finding.claim, verdict=verdict) for finding in lab.findings
    ]


def _first(lab: LabSpec) -> dict[str, Any]:
    """What rows of the first variant share."""
    name = next(variant.id for variant in lab.variants if variant.refused is None)
    return {
        **{"target": _TARGET, "lab": lab.id, "run_id": f"run-{lab.id}"},
        **{"variant": name, "session_id": f"session-{lab.id}.{name}"},
    }
