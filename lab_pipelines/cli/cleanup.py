"""`labs reap`, `teardown`, `ci-guard`: end what should have ended, by hand or in a CI step that always runs.

Doesn't belong here: what is over and why (resources/ownership.py, leases.py, pool_leases.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipelines.cli.console import CLEANED, explained, fail, say
from lab_pipelines.cli.options import LabArgument, TargetOption, known_lab, settings_for
from lab_pipelines.cli.places import Place, place_of
from lab_pipelines.deployment import REPO_ROOT

if TYPE_CHECKING:
    from resources.cluster import Reaped


def reap(target: TargetOption = None) -> None:
    """Do now what the reaper does every minute: end expired leases and dead runs, and give their nodes back."""
    from resources.cluster import ClusterError

    with explained(ClusterError):
        place = place_of(settings_for(target))
        if not _reap(place):
            say("nothing to reap")


def _reap(place: Place) -> list[Reaped]:
    """What was ended, each said. Ends the program when something would not go."""
    found = place.cluster.reap()
    ended = [one for one in found if one.trouble is None]
    for one in ended:
        say(f"{one.lab} (run {one.run_id}): {one.reason}; removed {', '.join(one.removed) or 'nothing'}")
    if left := [f"{one.lab} (run {one.run_id}): {one.trouble}" for one in found if one.trouble is not None]:
        fail("\n".join(left))
    return ended


def teardown(
    lab: LabArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    target: TargetOption = None,
) -> None:
    """Take one lab's stack away, whoever runs it, and the nodes that it holds."""
    from lab_pipelines.catalog.loader import SpecError, load_catalog
    from resources.cluster import ClusterError
    from resources.kube_api import Deadline
    from resources.pool_leases import RELEASE_WITHIN_S, held_pools, to_zero

    with explained(ClusterError, SpecError):
        known_lab(load_catalog(), lab)
        place = place_of(settings_for(target))
        held = [lease for lease in place.cluster.leases() if lease.lab == lab]
        pools = held_pools(place.node_pools.pools(), lab, held)
        if not held and not pools:
            say(f"{lab} holds nothing on target {place.settings.target}")
            return
        what = [
            f"the stack of run {lease.run_id} (lease until {lease.expires_at:%Y-%m-%d %H:%M} UTC)" for lease in held
        ]
        what += [f"{pool.count} nodes of pool {pool.name}" for pool in pools]
        if not yes and not typer.confirm(f"{lab}: end {' and '.join(what)}?"):
            fail(f"{lab} is left as it is")
        place.cluster.release(lab)
        for pool in pools:
            to_zero(place.node_pools, pool, deadline=Deadline.within(RELEASE_WITHIN_S), progress=say)
    say(f"{lab}: {' and '.join(what)}: released")


def ci_guard(
    run: Annotated[
        list[str] | None, typer.Option(help="A run's id; may be repeated. Unset: the instance's ended runs.")
    ] = None,
    target: TargetOption = None,
) -> None:
    """For a CI step that always runs: end what runs left behind. Needs no daemon.

    Exit code 0: nothing was left. 3: something was, and is gone. 1: something is still there.
    """
    from resources.cluster import ClusterError
    from resources.pool_leases import release_run

    with explained(ClusterError):
        place = place_of(settings_for(target))
        cleaned = _settle()
        cleaned += [one.lab for one in _reap(place)]
        ended = run if run is not None else _ended_runs({lease.run_id for lease in place.cluster.leases()})
        for run_id in ended:
            released = release_run(place.cluster, place.node_pools, run_id, progress=say)
            if released:
                say(f"run {run_id} had left {', '.join(released)}: released")
            cleaned += released
    if cleaned:
        raise typer.Exit(CLEANED)
    say("nothing was left behind")


def _home() -> Path | None:
    """The Dagster instance whose runs these are; None where there is none, as after a run without DAGSTER_HOME."""
    home = Path(os.environ.get("DAGSTER_HOME") or REPO_ROOT / ".dagster").resolve()
    return home if (home / "dagster.yaml").is_file() else None


def _settle() -> list[str]:
    from dagster import DagsterInstance

    from lab_pipelines.dead_runs import settle_dead_runs

    home = _home()
    if home is None:
        return []
    with DagsterInstance.from_config(str(home)) as instance:
        settled = settle_dead_runs(instance)
    for run_id in settled:
        say(f"run {run_id} was killed: marked as failed, its slots freed")
    return settled


def _ended_runs(run_ids: set[str]) -> list[str]:
    """Those of `run_ids` that this instance knows and that have ended. Runs of others are left to them."""
    from dagster import DagsterInstance, RunsFilter

    home = _home()
    if home is None or not run_ids:
        return []
    with DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_runs(RunsFilter(run_ids=sorted(run_ids)))
    return [run.run_id for run in found if run.is_finished]
