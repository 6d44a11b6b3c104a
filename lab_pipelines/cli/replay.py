"""`labs gpu replay`: what another policy would have saved, and whom it would have killed.

Doesn't belong here: the walk itself (lab_pipelines/gpu_replay.py).
"""

from __future__ import annotations

from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab_pipelines.cli.console import explained, fail, print_json, print_list, print_table, say
from lab_pipelines.cli.options import JsonOption, TargetOption, settings_for, warehouse_of

if TYPE_CHECKING:
    from lab_pipelines.deployment import Deployment
    from lab_pipelines.gpu_policy import GpuPolicy
    from lab_pipelines.gpu_replay import Replayed, Series
    from resources.warehouse_core import PlainWarehouse

_SQL = Path(__file__).parent


def replay(
    policy: Annotated[
        Path | None, typer.Option(help="A policy's file, as lab_pipelines/gpu_policy.yaml; unset: that one.")
    ] = None,
    sessions: Annotated[
        bool, typer.Option("--sessions", help="Over the sessions of labs, also where the sensor has rows of its own.")
    ] = False,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide recorded history anew, as if there were no leases: dollars saved, labs it would have killed."""
    from lab_pipelines.catalog.loader import SpecError
    from lab_pipelines.gpu_policy import POLICY_FILE, load_policy
    from lab_pipelines.gpu_replay import replay as walk
    from resources.lake import WarehouseError

    with explained(SpecError, WarehouseError):
        settings = settings_for(target)
        chosen = load_policy(policy or settings.gpu_policy or POLICY_FILE)
        warehouse = warehouse_of(settings)
        found = [] if sessions else _decided(warehouse, settings.target)
        source = "the sensor's own looks" if found else "sessions of labs"
        found = found or _sessions(warehouse, settings.target, chosen, settings)
    if not found:
        fail(f"nothing to replay on target {settings.target}: the sensor has not looked, and no lab has run there")
    done = walk(found, chosen)
    if as_json:
        print_json({"source": source, "target": settings.target, "pools": [asdict(one) for one in done]})
        return
    modelled = sum(one.provenance == "modelled" for one in done)
    kind = "modelled" if modelled == len(done) else f"{modelled} of {len(done)} modelled" if modelled else "measured"
    say(f"target {settings.target} · {source} · {kind} · leases taken away, list prices", style="bold")
    columns = ["pool", "node-hours", "saved", "cold starts", "cost, USD", "net saved, USD", "killed but for its lease"]
    print_table(columns, [_cells(one) for one in done], right=[1, 2, 3, 4, 5], whole=[0])
    killed = [f"{one.lab} at {one.at:%Y-%m-%d %H:%M:%S} UTC: {one.reason}" for pool in done for one in pool.killed]
    print_list("Labs that it would have killed, had they no lease", killed)
    paid, net = (sum((getattr(one, name) or Decimal() for one in done), Decimal()) for name in ("usd", "net_saved_usd"))
    say(f"\n{net:.4f} of {paid:.4f} USD saved, cold starts paid; {len(killed)} labs killed but for their leases")


def _cells(one: Replayed) -> list[str]:
    usd, net = ("unknown" if value is None else f"{value:.4f}" for value in (one.usd, one.net_saved_usd))
    killed = sorted({killed.lab for killed in one.killed})
    return [
        one.name,
        f"{one.node_hours:.3f}",
        f"{one.saved_node_hours:.3f}",
        str(one.cold_starts),
        usd,
        net,
        ", ".join(killed) or "none",
    ]


def _decided(warehouse: PlainWarehouse, target: str) -> list[Series]:
    from lab_pipelines.gpu_history import of_decisions

    return of_decisions(warehouse.query("FROM gpu_decisions WHERE target = ?", [target]))


def _sessions(warehouse: PlainWarehouse, target: str, policy: GpuPolicy, settings: Deployment) -> list[Series]:
    from lab_pipelines.gpu_history import of_sessions
    from resources.price_sheets import known_prices

    sql = {name: (_SQL / f"replayed_{name}.sql").read_text(encoding="utf-8") for name in _TABLES}
    sessions, requests, samples = (warehouse.query(sql[name], {"target": target}) for name in _TABLES)
    sheet = known_prices(settings.data_dir, settings.lake_url)
    return of_sessions(sessions, requests, samples, policy=policy, sheet=sheet, region=settings.region)


_TABLES = ("sessions", "requests", "samples")
