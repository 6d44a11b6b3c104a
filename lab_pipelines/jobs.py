"""The jobs. `dagster asset materialize` and the UI's button need none; this one adds the hook.

Doesn't belong here: when a job runs (sensors/, a backfill).
"""

from dagster import AssetSelection, define_asset_job

from lab_pipelines.hooks import release_on_failure

lab_job = define_asset_job(
    "lab",
    selection=AssetSelection.groups("lab"),
    hooks={release_on_failure},
    description="One lab, from its deployment to its sheet of costs.",
)
