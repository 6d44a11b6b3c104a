"""`labs gpu`: the node pools there are, who holds them, what they cost, and giving and taking their nodes by hand.

Doesn't belong here: the sensor's own decisions (lab_pipelines/gpu_policy.py), what another policy would have done
(replay.py).
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab_pipelines.cli.budget import refuse_gpu
from lab_pipelines.cli.console import WRONG_CALL, explained, fail, print_json, print_table, say
from lab_pipelines.cli.options import JsonOption, TargetOption, settings_for
from lab_pipelines.cli.places import Place, place_of, require_pools
from lab_pipelines.cli.replay import replay

if TYPE_CHECKING:
    from resources.node_pools import NodePool

WAIT_S = 15 * 60.0
"""For Azure to give or take nodes: its own limit for a slow machine type."""

app = typer.Typer(help="GPU node pools: see them, give and take their nodes, try another policy.", no_args_is_help=True)


@app.command()
def status(target: TargetOption = None, as_json: JsonOption = False) -> None:
    """Every pool: its nodes, who holds them until when, what they cost, and what the sensor last said."""
    from lab_pipelines.catalog.loader import SpecError
    from resources.cluster import ClusterError
    from resources.contract import WarehouseError
    from resources.pool_leases import holds, usd_per_h

    with explained(ClusterError):
        place = place_of(settings_for(target))
        require_pools(place)
        now = datetime.now(UTC)
        pools, leases = place.node_pools.pools(), place.cluster.leases()
    with explained(SpecError, WarehouseError):
        sheet = place.billing.sheet()
    last = _last_decisions(place)
    mode, why = place.gpu_switch.setting()
    lines = list[dict[str, Any]]()
    for pool in pools:
        held = holds(pool, leases, now=now)
        usd = usd_per_h(pool, sheet, place.billing.region)
        said = last.get(pool.name, {})
        lines.append(
            {
                "pool": pool.name,
                "vm_size": pool.vm_size,
                "nodes": pool.count,
                "state": pool.state,
                "ours": pool.ours,
                "autoscaled": pool.autoscaled,
                "spot": pool.spot,
                "held_by": sorted({hold.lab for hold in held}),
                "held_until": max((hold.until for hold in held), default=None),
                "usd_per_h": usd,
                "said_at": said.get("tick_at"),
                "said": said.get("reason"),
            }
        )
    if as_json:
        print_json({"sensor": mode, "set_by": why, "pools": lines})
        return
    columns = ["pool", "machine", "nodes", "state", "ours", "held by", "until (UTC)", "USD/h", "the sensor last said"]
    print_table(columns, [_cells(line, now) for line in lines], right=[2, 7], whole=[0, 1])
    ours = [line["usd_per_h"] or 0 for line in lines if line["ours"]]
    say(f"\npools of ours cost {sum(ours):.3f} USD/h by list price; the sensor is {mode} ({why})")


def _cells(line: Mapping[str, Any], now: datetime) -> list[str]:
    until, said_at = line["held_until"], line["said_at"]
    kinds = [name for name in ("autoscaled", "spot") if line[name]]
    minutes = 0 if said_at is None else (now - said_at).total_seconds() / 60
    return [
        line["pool"],
        line["vm_size"],
        str(line["nodes"]),
        ", ".join([line["state"], *kinds]),
        "yes" if line["ours"] else "no",
        ", ".join(line["held_by"]) or "nobody",
        f"{until:%Y-%m-%d %H:%M}" if until else "",
        "unknown" if line["usd_per_h"] is None else f"{line['usd_per_h']:.3f}",
        f"{line['said']} ({minutes:.0f} min ago)" if line["said"] else "",
    ]


def _last_decisions(place: Place) -> Mapping[str, Mapping[str, Any]]:
    """The sensor's newest row of each pool; none where it has never looked."""
    from lab_pipelines.cli.options import warehouse_of
    from resources.decision_log import DecisionLog
    from resources.lake import WarehouseError

    with explained(WarehouseError):
        return DecisionLog(warehouse_of(place.settings), place.settings.target).newest()


@app.command()
def down(
    pool: Annotated[str | None, typer.Argument(help="One pool, as labs gpu status names it.")] = None,
    all_ours: Annotated[bool, typer.Option("--all-ours", help="Every pool of ours that nobody holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    target: TargetOption = None,
) -> None:
    """Bring a pool to zero nodes, or all of ours that nobody holds. A pool that a lease holds is left alone."""
    from resources.cluster import ClusterError
    from resources.kube_api import Deadline
    from resources.pool_leases import BY_HAND, holds, to_zero

    if (pool is None) != all_ours:
        fail("name one pool, or give --all-ours; labs gpu status lists them", code=WRONG_CALL)
    with explained(ClusterError):
        place = place_of(settings_for(target))
        require_pools(place)
        found = place.node_pools.pools()
        chosen = [_named(found, pool)] if pool else [one for one in found if one.ours and one.mode == "User"]
        leases, now = place.cluster.leases(), datetime.now(UTC)
        kept = 0
        for one in chosen:
            # Who names a pool may end what was given to it by hand; --all-ours leaves that to whoever gave it.
            held = [hold for hold in holds(one, leases, now=now) if all_ours or hold.lab != BY_HAND]
            if one.count == 0:
                say(f"{one.name}: at zero already")
            elif held:
                kept += 1
                until = max(hold.until for hold in held)
                say(
                    f"{one.name}: kept; {held[0].lab} holds it until {until:%Y-%m-%d %H:%M} UTC "
                    "(labs teardown LAB ends a lab's hold)"
                )
            elif dry_run:
                say(f"{one.name}: would go from {one.count} to 0 nodes")
            else:
                to_zero(place.node_pools, one, deadline=Deadline.within(WAIT_S), progress=say)
    if pool and kept:
        raise typer.Exit(1)


def _named(pools: list[NodePool], name: str) -> NodePool:
    for pool in pools:
        if pool.name == name and pool.ours:
            return pool
        if pool.name == name:
            fail(f"pool {name} isn't ours: it lacks the tag lab-pipelines=managed")
    fail(f"there is no pool {name}; the cluster has: {', '.join(one.name for one in pools) or 'none'}", code=WRONG_CALL)


@app.command()
def up(
    sku: Annotated[str, typer.Argument(help="The machine type, e.g. Standard_NC4as_T4_v3.")],
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 1,
    for_: Annotated[
        str, typer.Option("--for", help="Until they go by themselves, e.g. 90m or 2h; at most 24h.")
    ] = "2h",
    spot: Annotated[bool, typer.Option("--spot", help="From the spot pool of that machine type.")] = False,
    target: TargetOption = None,
) -> None:
    """Give our pool of a machine type some nodes, with an end: the reaper takes them away when it has come."""
    import uuid

    from resources import durations
    from resources.cluster import ClusterError
    from resources.kube_api import Deadline
    from resources.node_pools import choose_pool
    from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, LONGEST, RUN_LABEL
    from resources.pool_leases import BY_HAND, holds

    try:
        length = timedelta(milliseconds=durations.to_ms(for_))
    except ValueError as error:
        fail(f"--for: {error}", code=WRONG_CALL)
    if not timedelta(minutes=1) <= length <= LONGEST:
        fail(f"--for {for_}: at least 1m, at most 24h; run it again to hold the nodes longer", code=WRONG_CALL)
    with explained(ClusterError):
        place = place_of(settings_for(target))
        require_pools(place)
        pool = choose_pool(place.node_pools.pools(), sku=sku, spot=spot)
        now = datetime.now(UTC)
        if held := [hold for hold in holds(pool, place.cluster.leases(), now=now) if hold.lab != BY_HAND]:
            fail(f"pool {pool.name} is held by {held[0].lab} until {held[0].until:%Y-%m-%d %H:%M} UTC; wait for it")
        refuse_gpu(place, pool)
        until = now + length
        tags = {
            LEASE_LABEL: uuid.uuid4().hex,
            RUN_LABEL: f"{BY_HAND}-{getpass.getuser()}",
            EXPIRES_LABEL: str(int(until.timestamp())),
        }
        scaled = place.node_pools.scale(pool, nodes, tags=tags, deadline=Deadline.within(WAIT_S), progress=say)
    say(f"pool {pool.name} went from {scaled.before} to {scaled.after} nodes, until {until:%Y-%m-%d %H:%M} UTC")
    say(f"earlier: labs gpu down {pool.name}")


@app.command()
def pause(
    why: Annotated[str, typer.Argument(help="For whoever wonders why nothing goes to zero.")] = "no reason given",
    target: TargetOption = None,
) -> None:
    """Switch the scale-to-zero sensor off at once, until labs gpu resume. The reaper goes on."""
    with explained():
        place_of(settings_for(target)).gpu_switch.pause(f"{why} ({getpass.getuser()})")
    say("the scale-to-zero sensor is off until: labs gpu resume")


@app.command()
def resume(target: TargetOption = None) -> None:
    """Take a pause back."""
    with explained():
        switch = place_of(settings_for(target)).gpu_switch
    was = switch.resume()
    say(f"{'the pause is over' if was else 'it was not paused'}; the sensor is {switch.setting()[0]}")


app.command("replay")(replay)
