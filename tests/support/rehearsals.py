"""Running one lab of the catalogue in rehearsal, in this process, and the warehouse that it leaves.

Doesn't belong here: a world without a lab (worlds.py).
"""

from __future__ import annotations

from pathlib import Path

from dagster import AssetKey

from lab_pipelines.build import build_defs
from lab_pipelines.deployment import Deployment
from resources.warehouse import Warehouse

LAB_ASSETS = [
    AssetKey(name) for name in ("deployed_stack", "load_run", "metrics_snapshot", "cost_attribution", "finops_sheet")
]


def rehearsed(lab: str, data_dir: Path, *, pace: str | None = None) -> Warehouse:
    """All of the lab's assets, with every variant; the report is left out."""
    defs = build_defs(target="rehearsal", deployment=Deployment(data_dir=data_dir, pace=pace))
    job = defs.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(partition_key=lab, asset_selection=LAB_ASSETS).success
    return Warehouse(data_dir=str(data_dir))
