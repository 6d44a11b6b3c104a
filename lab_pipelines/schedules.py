"""What happens at a time of day. Doesn't belong here: what is done then (jobs.py, assets/)."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, RunRequest, SkipReason, schedule

from lab_pipelines.jobs import bill_job
from resources.billing import Billing


# A day's charges are there 8 to 24 hours after it ("Understand Cost Management data", Microsoft's documentation): in
# the morning yesterday is often complete, and what comes later, the next morning sees.
@schedule(
    job=bill_job,
    cron_schedule="30 9 * * *",
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Asks for the cloud's bill and reconciles the estimates with it.",
)
def daily_bill(billing: Billing) -> RunRequest | SkipReason:
    if not billing.gives_bill:
        return SkipReason("nobody bills this target: its costs stay estimates")
    return RunRequest()


schedules = [daily_bill]
