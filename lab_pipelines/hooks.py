"""Hooks of the lab's job. Attached to the job, not to its assets: those would miss a failed check.

Doesn't belong here: what runs after a whole run, or after one that was cancelled (sensors/run_status.py).
"""

from dagster import HookContext, failure_hook

from resources.pool_leases import release_run


@failure_hook(required_resource_keys={"cluster", "node_pools"})
def release_on_failure(context: HookContext) -> None:
    """Release what the run holds as soon as one of its steps has failed."""
    resources = context.resources
    released = release_run(resources.cluster, resources.node_pools, context.run_id, progress=context.log.info)
    if released:
        context.log.info(f"{', '.join(released)}: released after {context.op.name} had failed")
