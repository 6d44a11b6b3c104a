"""Leases in a cluster: one run holds a lab, until it ends it, or until its time is over and anybody may."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from resources import kube_api, ownership
from resources.cluster import ClusterError, Lease, LeaseHeldError
from resources.kube_api import Deadline, RefusedError
from resources.kube_leases import CLUSTER_SCOPED, NamespaceLeases
from resources.ownership import EXPIRES_LABEL, LEASE_LABEL, LEASE_TTL
from tests.support.contract import WITHIN_S, Place, unique, until

pytestmark = pytest.mark.cluster

ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"


@pytest.fixture
def leases(place: Place) -> NamespaceLeases:
    return NamespaceLeases(place.api_client)


@pytest.fixture
def spec(place: Place) -> Iterator[LabSpec]:
    """A lab whose namespace is the test's own."""
    spec = load_catalog().spec("L06").model_copy(update={"namespace": unique("lab-contract")})
    yield spec
    if (there := namespace(place, spec)) is not None:
        place.ask("DELETE", f"/api/v1/namespaces/{there['metadata']['name']}")


def soon() -> Deadline:
    return Deadline.within(WITHIN_S)


def take(leases: NamespaceLeases, spec: LabSpec, run_id: str = "run-1") -> Lease:
    return leases.take(spec, run_id, hold=None, deadline=soon())


def namespace(place: Place, spec: LabSpec) -> Any:
    try:
        return place.ask("GET", f"/api/v1/namespaces/{spec.namespace}")
    except RefusedError:
        return None


def set_expiry(place: Place, spec: LabSpec, at: datetime) -> None:
    change = {"metadata": {"labels": {EXPIRES_LABEL: str(int(at.timestamp()))}}}
    path = f"/api/v1/namespaces/{spec.namespace}"
    place.ask("PATCH", path, change, content_type=kube_api.MERGE_PATCH)


def make_role(place: Place, name: str, lease_id: str | None) -> None:
    labels = {LEASE_LABEL: lease_id} if lease_id else {}
    body = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": []}
    place.ask("POST", ROLES, {**body, "metadata": {"name": name, "labels": labels}})


def role_is_there(place: Place, name: str) -> bool:
    return name in [one["metadata"]["name"] for one in place.ask("GET", ROLES)["items"]]


def test_a_lease_is_a_namespace_that_says_who_holds_it_until_when(
    place: Place, leases: NamespaceLeases, spec: LabSpec
) -> None:
    lease = take(leases, spec)
    labels = namespace(place, spec)["metadata"]["labels"]
    assert labels.items() >= {**spec.cost_labels, "run-id": "run-1", LEASE_LABEL: lease.lease_id}.items()
    held = leases.read(str(spec.namespace), deadline=soon())
    assert held is not None and held.lease == lease
    assert abs(held.lease.expires_at - datetime.now(UTC) - LEASE_TTL) < timedelta(minutes=1)


def test_of_several_runs_that_want_a_lab_at_once_one_gets_it(
    place: Place, leases: NamespaceLeases, spec: LabSpec
) -> None:
    got: list[str] = []
    refused: list[str] = []

    def run(run_id: str) -> None:
        try:
            got.append(take(leases, spec, run_id).run_id)
        except LeaseHeldError as error:
            refused.append(str(error))

    runs = [threading.Thread(target=run, args=(f"run-{number}",)) for number in range(4)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert len(got) == 1 and len(refused) == 3
    assert all(f"L06 is held by run {got[0]}" in said for said in refused)


def test_a_renewed_lease_lasts_from_then_on(place: Place, leases: NamespaceLeases, spec: LabSpec) -> None:
    lease = take(leases, spec)
    set_expiry(place, spec, datetime.now(UTC) + timedelta(minutes=2))
    renewed = leases.renew(str(spec.namespace), lease.lease_id, deadline=soon())
    assert renewed.expires_at - datetime.now(UTC) > LEASE_TTL - timedelta(minutes=1)
    held = leases.read(str(spec.namespace), deadline=soon())
    assert held is not None and held.lease.expires_at == renewed.expires_at


def test_whoever_has_lost_a_lease_can_not_renew_it(place: Place, leases: NamespaceLeases, spec: LabSpec) -> None:
    take(leases, spec)
    with pytest.raises(ClusterError, match=f"the lease on {spec.namespace} is gone"):
        leases.renew(str(spec.namespace), "another", deadline=soon())


def test_a_released_lease_takes_everything_along_and_the_next_run_may_begin(
    place: Place, leases: NamespaceLeases, spec: LabSpec
) -> None:
    lease, role = take(leases, spec), unique("labs-contract")
    make_role(place, role, lease.lease_id)
    maps = f"/api/v1/namespaces/{spec.namespace}/configmaps"
    place.ask("POST", maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    leases.put_sessions(str(spec.namespace), [], labels={}, deadline=soon())
    assert leases.release(str(spec.namespace), lease.lease_id, deadline=soon(), progress=lambda line: None) is not None
    assert namespace(place, spec) is None and not role_is_there(place, role)
    assert leases.release(str(spec.namespace), lease.lease_id, deadline=soon(), progress=lambda line: None) is None
    assert take(leases, spec, "run-2").run_id == "run-2"


def test_another_lease_on_the_same_lab_is_not_released(place: Place, leases: NamespaceLeases, spec: LabSpec) -> None:
    take(leases, spec)
    assert leases.release(str(spec.namespace), "another", deadline=soon(), progress=lambda line: None) is None
    assert namespace(place, spec)["status"]["phase"] == "Active"


def test_the_reaper_ends_what_is_over_and_nothing_else(place: Place, leases: NamespaceLeases, spec: LabSpec) -> None:
    good = spec.model_copy(update={"namespace": unique("lab-contract")})
    over, kept = take(leases, spec), take(leases, good)
    try:
        set_expiry(place, spec, datetime.now(UTC) - timedelta(seconds=1))
        reaped = {one.lease_id: one for one in leases.reap(now=datetime.now(UTC), deadline=soon())}
        assert over.lease_id in reaped and kept.lease_id not in reaped
        assert reaped[over.lease_id].removed == [f"namespaces/{spec.namespace}"]
        assert "its lease expired at" in reaped[over.lease_id].reason
        until(lambda: namespace(place, spec) is None, "the namespace of the lease that is over is gone")
        assert namespace(place, good)["status"]["phase"] == "Active"
        assert place.ask("GET", f"/api/v1/namespaces/{place.namespace}")["status"]["phase"] == "Active"
    finally:
        place.ask("DELETE", f"/api/v1/namespaces/{good.namespace}")


def test_the_reaper_removes_what_carries_the_label_of_a_lease_that_is_not_there(
    place: Place, leases: NamespaceLeases, spec: LabSpec
) -> None:
    lease = take(leases, spec)
    orphan, held, nobodys = (unique("labs-contract") for _ in range(3))
    make_role(place, orphan, unique("gone"))
    make_role(place, held, lease.lease_id)
    make_role(place, nobodys, None)
    try:
        reaped = leases.reap(now=datetime.now(UTC), deadline=soon())
        assert [f"clusterroles/{orphan}"] in [one.removed for one in reaped]
        assert not role_is_there(place, orphan)
        assert role_is_there(place, held) and role_is_there(place, nobodys)
    finally:
        for name in (held, nobodys):
            place.ask("DELETE", f"{ROLES}/{name}")


def test_every_kind_outside_of_a_namespace_can_be_asked_for_by_label(place: Place) -> None:
    for path in CLUSTER_SCOPED:
        assert place.ask("GET", path, query={"labelSelector": LEASE_LABEL})["items"] is not None


def test_a_namespace_that_is_not_ours_is_neither_taken_nor_reaped(place: Place, leases: NamespaceLeases) -> None:
    spec = load_catalog().spec("L06").model_copy(update={"namespace": place.namespace})
    with pytest.raises(ClusterError, match="exists and isn't ours"):
        take(leases, spec)
    long_ago = {ownership.EXPIRES_LABEL: "1"}
    path = f"/api/v1/namespaces/{place.namespace}"
    place.ask("PATCH", path, {"metadata": {"labels": long_ago}}, content_type=kube_api.MERGE_PATCH)
    assert place.namespace not in [held.lease.namespace for held in leases.all(deadline=soon())]


def test_a_lab_that_is_still_going_away_is_waited_for(place: Place, leases: NamespaceLeases, spec: LabSpec) -> None:
    lease = take(leases, spec)
    maps = f"/api/v1/namespaces/{spec.namespace}/configmaps"
    metadata = {"name": "held", "finalizers": ["labs.example/hold"]}
    place.ask("POST", maps, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    with pytest.raises(ClusterError, match="is still there after being deleted"):
        leases.release(str(spec.namespace), lease.lease_id, deadline=Deadline.within(1.0), progress=lambda line: None)

    def let_go() -> None:
        time.sleep(0.5)  # while the next run waits
        change = {"metadata": {"finalizers": None}}
        place.ask("PATCH", f"{maps}/held", change, content_type=kube_api.MERGE_PATCH)

    letting_go = threading.Thread(target=let_go)
    letting_go.start()
    assert take(leases, spec, "run-2").run_id == "run-2"
    letting_go.join()
