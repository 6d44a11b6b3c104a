"""A lab whose pool scales, in rehearsal: its engine waits for a node, leaves it, and the next one pays for another.

The lab is L06 with `min_count: 0`: no lab of the catalogue that is complete has a pool that scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import AssetKey

from lab_pipelines.build import build_defs
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import Deployment
from lab_pipelines.rehearsal.node_pools import autoscaler_times
from resources.cluster import ClusterError, Session, StackOrder
from resources.cluster_rehearsal import RehearsalCluster
from resources.labs import Labs
from resources.rehearsals import rehearsal_at
from resources.telemetry_rehearsal import RehearsalTelemetry
from resources.warehouse import Warehouse
from tests.support.copied_catalog import copied_catalog

L06 = load_catalog().spec("L06")
WITH_NODE = [
    "node_requested",
    "node_ready",
    "driver_ready",
    "image_pulled",
    "model_loaded",
    "engine_ready",
    "first_token",
]
ENGINE_ALONE = ["model_loaded", "engine_ready", "first_token"]
GPUS = 'sum(kube_node_status_allocatable{resource="nvidia_com_gpu",$selector}) or vector(0)'


def quiet(line: str) -> None:
    """Whoever wants to hear of progress."""


def scaling(count: int = 1) -> LabSpec:
    nodes = [L06.nodes[0].model_copy(update={"min_count": 0, "count": count})]
    return LabSpec.model_validate({**L06.model_dump(), "nodes": [node.model_dump() for node in nodes]})


def order(spec: LabSpec) -> StackOrder:
    name, pace = spec.pace("full", "rehearsal")
    return StackOrder(spec=spec, variant=spec.variants[0], run_id="run-1", pace_name=name, pace=pace, hold=None)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RehearsalCluster]:
    cluster = RehearsalCluster(data_dir=str(tmp_path))
    yield cluster
    cluster.release("L06")


def gpus_become(session: Session, number: float, *, within_s: float) -> float:
    """Seconds until the cluster offers so many GPUs, by Prometheus."""
    waited = RehearsalTelemetry().wait_until(
        session.prometheus_url,
        GPUS,
        lambda value: value == number,
        selector=session.metric_selector,
        within_s=within_s,
        time_scale=1.0,
    )
    assert waited.held, waited
    return waited.waited_s


def test_an_engine_waits_for_a_node_that_goes_when_it_is_idle_and_the_next_one_waits_again(
    cluster: RehearsalCluster,
) -> None:
    session = cluster.deploy(order(scaling()), progress=quiet)
    engine = L06.stack.component("vllm")
    assert [phase.name for phase in session.phases] == WITH_NODE
    assert all(before.ended_at == after.started_at for before, after in pairwise(session.phases))
    assert session.phases[0].started_at == session.requested_at
    assert gpus_become(session, 1, within_s=5.0) < 1.0

    # Stopped and started at once, the engine finds node and image.
    cluster.stop(session, engine)
    again = cluster.start(session, engine, [], restart=True, progress=quiet)
    assert [phase.name for phase in again] == ENGINE_ALONE

    cluster.stop(session, engine)
    times = autoscaler_times()
    idle_s = times.unneeded_s.value + times.scan_interval_s.value + times.removal_s.value
    assert gpus_become(session, 0, within_s=idle_s + 10.0) >= times.unneeded_s.value
    later = cluster.start(session, engine, [], restart=False, progress=quiet)
    assert [phase.name for phase in later] == WITH_NODE
    first, second = ({p.name: p.duration_s for p in phases} for phases in (session.phases, later))
    assert first["node_ready"] != second["node_ready"] > 0.6 * 284

    plane = rehearsal_at(session.prometheus_url).control_plane
    assert plane.pools is not None
    assert [[spell.state for spell in node.spells] for node in plane.pools.nodes] == [
        ["requested", "starting", "used", "empty", "removing"],
        ["requested", "starting", "used"],
    ]


def test_a_quota_without_a_vcpu_left_fails_the_lab_with_both_reasons(tmp_path: Path) -> None:
    cluster = RehearsalCluster(data_dir=str(tmp_path), vcpu_quota=3)
    with pytest.raises(
        ClusterError, match=r"no node within 3600 .*0/1 nodes are available.*: 1 in backoff after failed"
    ):
        cluster.deploy(order(scaling()), progress=quiet)
    assert cluster.leases() == []


def test_a_node_is_paid_for_from_its_order_to_its_end_and_at_the_price_of_its_kind(tmp_path: Path) -> None:
    """Through all assets and their checks; the engine is the only one that ever needs a node, and it is a spot node."""
    catalog = copied_catalog(tmp_path / "catalog", labs=["L06"])
    spec = yaml.safe_load((catalog / "L06.yaml").read_text(encoding="utf-8"))
    spec["nodes"][0] |= {"min_count": 0, "priority": "spot"}
    (catalog / "L06.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    data_dir = tmp_path / "data"
    defs = build_defs(
        target="rehearsal",
        deployment=Deployment(data_dir=data_dir, pace="short"),
        resource_overrides={"labs": Labs(target="rehearsal", pace="short", catalog_dir=str(catalog))},
    )
    assert (
        defs.resolve_implicit_global_asset_job_def()
        .execute_in_process(
            partition_key="L06",
            asset_selection=[
                AssetKey(name)
                for name in ("deployed_stack", "load_run", "metrics_snapshot", "cost_attribution", "finops_sheet")
            ],
        )
        .success
    )
    warehouse = Warehouse(data_dir=str(data_dir))
    [held] = warehouse.query("FROM node_time")
    [session] = warehouse.query("FROM stack_sessions WHERE state = 'closed'")
    assert (held["node"], held["pool"], held["priority"], held["nodes"]) == ("lab-06-0", "lab-06", "spot", 1)
    assert session["requested_at"] < held["held_from"] < session["ready_at"]
    assert held["held_until"] == session["released_at"]
    waited_s = (held["held_from"] - session["requested_at"]).total_seconds()
    assert held["cold_start_s"] == pytest.approx(session["cold_start_s"] - waited_s, abs=1e-3)
    [cost] = warehouse.query(
        "SELECT sum(PricingQuantity) AS hours, sum(usd) AS usd, any_value(x_pool) AS pool, any_value(ListUnitPrice) AS "
        "price, list(DISTINCT x_priority) AS priorities FROM cost_current"
    )
    assert float(cost["hours"]) == pytest.approx((held["cold_start_s"] + held["held_s"]) / 3600, abs=1e-8)
    assert (cost["pool"], cost["priorities"]) == ("lab-06", ["spot"])
    spot = load_prices().unit_price(session["sku"], Deployment().region, "spot")
    assert cost["price"] == spot.usd
    assert cost["usd"] == pytest.approx(spot.usd * cost["hours"], abs=Decimal("1e-8"))


@pytest.mark.parametrize(("min_count", "said"), [(2, r"min_count \(2\) is above count \(1\)"), (-1, "greater than")])
def test_a_minimum_that_can_not_be_is_refused(min_count: int, said: str) -> None:
    fields: dict[str, Any] = yaml.safe_load(yaml.safe_dump(L06.model_dump(mode="json")))
    fields["nodes"][0]["min_count"] = min_count
    with pytest.raises(ValueError, match=said):
        LabSpec.model_validate(fields)
