"""Two labs on one node of a cluster at the same time: each says what it asks there, and together they pay it once."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.lanes import UNITS, ClosedSession
from lab_pipelines.node_time import NodeTime, share_nodes
from lab_pipelines.rows.sessions import node_time_row, session_row
from resources.cluster import Session, StackOrder
from resources.cluster_kubernetes import KubernetesCluster
from resources.node_pools import NoNodePools
from tests.support.kube.kubelet import Delays
from tests.support.lab_cluster import IMAGE, T4, lab_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

L06 = load_catalog().spec("L06")


def quiet(line: str) -> None:
    """Whoever wants to hear of progress."""


def order(lab: str) -> StackOrder:
    spec = LabSpec.model_validate({**L06.model_dump(), "id": lab, "namespace": f"lab-{lab[1:]}"})
    name, pace = spec.pace("smoke", "kubernetes")
    return StackOrder(spec=spec, variant=spec.variants[0], run_id=f"run-{lab}", pace_name=name, pace=pace, hold=None)


def test_labs_with_pods_on_one_node_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    delays = Delays(schedule_s=0.2, pull_s=0.2, start_s=0.2, ready_s=0.2)
    with lab_cluster(tmp_path, delays=delays) as around:
        # The modelled server asks for no GPU, so that both find room on the node without a taint.
        around.api.make_node("system-0", labels={"node.kubernetes.io/instance-type": T4}, cpu="32", memory="128Gi")
        cluster = KubernetesCluster(
            node_pools=NoNodePools(),
            data_dir=str(tmp_path / "data"),
            kubeconfig=str(around.folder / "kubeconfig"),
            engine="modelled",
            image=IMAGE,
            prometheus_url=around.prometheus_url,
        )
        sessions = list[Session]()
        for lab in ("L06", "L11"):
            cluster.deploy(order(lab), progress=quiet)
            sessions.append(cluster.attach(lab))
        until = cluster.now()
        held = {one.session_id: cluster.held_nodes(one, until=until) for one in sessions}
        for lab in ("L06", "L11"):
            cluster.release(lab)
    for nodes in held.values():
        [node] = nodes
        assert (node.node, node.sku, node.exclusive) == ("system-0", T4, False)
        assert (node.requested.cpus or 0) > 0 and node.capacity.cpus == 32
        assert node.used.cpus is None, "this Prometheus has no cAdvisor; that is unknown, not zero"
    closed = {one.session_id: ClosedSession.from_row(session_row(one, released_at=until)) for one in sessions}
    times = [NodeTime.from_row(node_time_row(one, node)) for one in sessions for node in held[one.session_id]]
    lanes = share_nodes(times, closed, price_of=lambda sku, priority: Decimal(1))
    first, second = (lanes[one.session_id][0] for one in sessions)
    assert first.held[0].nodes == 1, "alone until the other one came"
    assert first.held[-1].nodes + second.held[-1].nodes == 1
    wall_s = (until - sessions[1].requested_at).total_seconds()
    assert 0 < second.held[-1].end_us - second.held[0].start_us <= wall_s * 1e6 + 1
    assert first.hours > 0 and first.usd is not None and abs(first.usd - first.hours) <= UNITS * 1e-9
    assert first.how and "a share of node system-0" in first.how
