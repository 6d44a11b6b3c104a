"""The target's own cluster, for commands that ask it: without Dagster's run around it.

Belongs here: building it from the settings, and what a command asks of it. Doesn't belong here: what a cluster does
(resources/cluster_*.py), or local stacks as their files tell of them (stacks.py).

Importing a cluster takes as long as importing Dagster, so that only what needs one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab_pipelines.cli.console import explained
from lab_pipelines.deployment import CLUSTER_TARGETS, Deployment

if TYPE_CHECKING:
    from resources.cluster import Cluster


def cluster_of(settings: Deployment) -> Cluster:
    """The cluster of the settings' target. Raises `DeploymentError` for settings that it lacks."""
    from lab_pipelines.build import RESOURCES

    return RESOURCES[settings.target](settings)["cluster"]


def require_usable(settings: Deployment) -> None:
    """End the command with one line where a remote target can't be used at all: what to install, set or sign in to."""
    if settings.target not in CLUSTER_TARGETS:
        return
    from resources.cluster import ClusterError

    with explained(ClusterError):
        cluster_of(settings).check()


def left_of(settings: Deployment, lab: str) -> str | None:
    """What is left of a lab's stack on the target, in words; None when its lease is gone."""
    if settings.target in CLUSTER_TARGETS:
        from resources.cluster import ClusterError

        with explained(ClusterError):
            leases = [lease for lease in cluster_of(settings).leases() if lease.lab == lab]
        return f"until {leases[0].expires_at:%H:%M:%S} UTC" if leases else None
    from lab_pipelines.cli.stacks import stacks

    return next((stack.state for stack in stacks(settings.data_dir / "state") if stack.lab == lab), None)
