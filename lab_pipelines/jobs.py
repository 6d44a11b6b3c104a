"""The jobs. `dagster asset materialize` and the UI's button need none; a lab's adds the hook, the bill's is scheduled.

Doesn't belong here: when a job runs (schedules.py, sensors/, a backfill).
"""

from dagster import AssetSelection, define_asset_job

from lab_pipelines.hooks import release_on_failure

lab_job = define_asset_job(
    "lab",
    selection=AssetSelection.groups("lab"),
    hooks={release_on_failure},
    description="One lab, from its deployment to its sheet of costs.",
)

bill_job = define_asset_job(
    "reconcile_bill",
    selection=AssetSelection.assets("bill"),
    description="Asks for the cloud's bill, and reconciles the estimates with it.",
)
