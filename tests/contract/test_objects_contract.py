"""How an API server keeps objects: names, versions, owners of fields, selectors, namespaces that go."""

from __future__ import annotations

from typing import Any

import pytest

from resources import kube_api
from resources.kube_api import Deadline, RefusedError
from tests.support.contract import WITHIN_S, Place, unique, until

pytestmark = pytest.mark.cluster


def config(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def apply_as(place: Place, manager: str, body: dict[str, Any], *, force: bool = False) -> Any:
    path, query = f"configmaps/{body['metadata']['name']}", {"fieldManager": manager, "force": str(force).lower()}
    return place.ask("PATCH", path, body, query=query, content_type=kube_api.APPLY_PATCH)


def refused(place: Place, *asked: Any, **options: Any) -> RefusedError:
    with pytest.raises(RefusedError) as raised:
        place.ask(*asked, **options)
    return raised.value


# --- Names and versions ---


def test_a_name_is_given_once_and_a_namespace_is_too(place: Place) -> None:
    place.ask("POST", "configmaps", config("a"))
    again = refused(place, "POST", "configmaps", config("a"))
    assert (again.status, again.reason, again.message) == (409, "AlreadyExists", 'configmaps "a" already exists')
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.namespace}}
    again = refused(place, "POST", "/api/v1/namespaces", namespace)
    assert (again.status, again.message) == (409, f'namespaces "{place.namespace}" already exists')


def test_what_is_not_there_is_named(place: Place) -> None:
    absent = refused(place, "GET", "configmaps/none")
    assert (absent.status, absent.reason, absent.message) == (404, "NotFound", 'configmaps "none" not found')
    path = f"/apis/apps/v1/namespaces/{place.namespace}/deployments/none"
    assert refused(place, "GET", path).message == 'deployments.apps "none" not found'


def test_a_change_of_a_version_that_is_no_longer_the_newest_is_refused(place: Place) -> None:
    former = place.ask("POST", "configmaps", config("a"))["metadata"]["resourceVersion"]
    change = {"metadata": {"resourceVersion": former, "labels": {"n": "1"}}}
    place.ask("PATCH", "configmaps/a", change, content_type=kube_api.MERGE_PATCH)
    late = refused(place, "PATCH", "configmaps/a", change, content_type=kube_api.MERGE_PATCH)
    assert (late.status, late.reason) == (409, "Conflict")
    assert 'Operation cannot be fulfilled on configmaps "a": the object has been modified' in late.message


def test_an_object_is_deleted_only_as_the_one_that_was_meant(place: Place) -> None:
    uid = place.ask("POST", "configmaps", config("a"))["metadata"]["uid"]
    other = refused(place, "DELETE", "configmaps/a", {"preconditions": {"uid": "another"}})
    assert (other.status, other.reason) == (409, "Conflict") and "Precondition failed: UID" in other.message
    place.ask("DELETE", "configmaps/a", {"preconditions": {"uid": uid}})
    assert refused(place, "GET", "configmaps/a").status == 404


def test_a_dry_run_writes_nothing(place: Place) -> None:
    assert place.ask("POST", "configmaps", config("a"), query={"dryRun": "All"})["metadata"]["name"] == "a"
    assert refused(place, "GET", "configmaps/a").status == 404


def test_unknown_fields_are_refused_where_strictness_is_asked_for(place: Place) -> None:
    body = {**config("a"), "dat": {}}
    strict = refused(place, "POST", "configmaps", body, query={"fieldValidation": "Strict"})
    assert strict.status == 400 and 'strict decoding error: unknown field "dat"' in strict.message


# --- Server-side apply ---


def test_two_managers_may_own_parts_of_one_object_and_not_the_same_field(place: Place) -> None:
    apply_as(place, "one", config("a", x="1"))
    apply_as(place, "two", config("a", y="1"))
    assert place.read("configmaps", "a")["data"] == {"x": "1", "y": "1"}
    with pytest.raises(RefusedError) as raised:
        apply_as(place, "two", config("a", x="2", y="1"))
    assert (
        raised.value.status == 409
        and 'conflict with "one"' in raised.value.message
        and ".data.x" in raised.value.message
    )
    assert apply_as(place, "two", config("a", x="2", y="1"), force=True)["data"] == {"x": "2", "y": "1"}


def test_a_field_that_its_only_manager_no_longer_applies_is_removed(place: Place) -> None:
    apply_as(place, "one", config("a", x="1", y="1"))
    apply_as(place, "two", config("a", y="1"))
    assert apply_as(place, "one", config("a", z="1"))["data"] == {"y": "1", "z": "1"}


def test_labels_that_somebody_else_added_outlive_an_apply(place: Place) -> None:
    apply_as(place, "one", config("a", {"mine": "1"}))
    place.ask("PATCH", "configmaps/a", {"metadata": {"labels": {"ours": "1"}}}, content_type=kube_api.MERGE_PATCH)
    assert apply_as(place, "one", config("a", {"mine": "2"}))["metadata"]["labels"] == {"mine": "2", "ours": "1"}


# --- Lists ---


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("tier=a", {"one", "two"}),
        ("tier!=a", {"three"}),
        ("tier in (a,b),size", {"two", "three"}),
        ("!size", {"one"}),
        ("tier notin (a)", {"three"}),
    ],
)
def test_labels_select(place: Place, selector: str, found: set[str]) -> None:
    # Among objects that carry `of`, since a cluster puts a config map of its own into every namespace.
    place.ask("POST", "configmaps", config("one", {"of": "test", "tier": "a"}))
    place.ask("POST", "configmaps", config("two", {"of": "test", "tier": "a", "size": "1"}))
    place.ask("POST", "configmaps", config("three", {"of": "test", "tier": "b", "size": "2"}))
    listed = place.ask("GET", "configmaps", query={"labelSelector": f"of=test,{selector}"})
    assert {one["metadata"]["name"] for one in listed["items"]} == found


def test_a_list_comes_in_pieces_if_asked_for(place: Place) -> None:
    for name in "abcde":
        place.ask("POST", "configmaps", config(name, {"of": "test"}))
    names, query = [], {"labelSelector": "of=test", "limit": "2"}
    while True:
        listed = place.ask("GET", "configmaps", query=query)
        assert len(listed["items"]) <= 2
        names += [one["metadata"]["name"] for one in listed["items"]]
        if not (token := listed["metadata"].get("continue")):
            break
        query = {**query, "continue": token}
    assert names == ["a", "b", "c", "d", "e"]


def test_a_collection_is_deleted_by_its_labels_alone(place: Place) -> None:
    place.ask("POST", "configmaps", config("a", {"of": "test"}))
    place.ask("POST", "configmaps", config("b"))
    place.ask("DELETE", "configmaps", query={"labelSelector": "of=test"})
    until(lambda: not place.ask("GET", "configmaps", query={"labelSelector": "of=test"})["items"], "a is gone")
    assert place.read("configmaps", "b")


def test_a_field_that_can_not_select_is_refused(place: Place) -> None:
    said = refused(place, "GET", "configmaps", query={"fieldSelector": "data.x=1"})
    assert said.status == 400 and '"data.x" is not a known field selector' in said.message
    pods = refused(place, "GET", "pods", query={"fieldSelector": "spec.hostname=x"})
    assert pods.status == 400 and "field label not supported: spec.hostname" in pods.message


# --- Namespaces ---


def test_a_namespace_that_is_going_takes_nothing_new_and_says_what_holds_it_up(place: Place) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": unique("labs-contract")}}
    name = place.ask("POST", "/api/v1/namespaces", namespace)["metadata"]["name"]
    path, held = f"/api/v1/namespaces/{name}", config("held")
    held["metadata"]["finalizers"] = ["labs.example/hold"]
    place.ask("POST", f"{path}/configmaps", held)
    try:
        place.ask("DELETE", path)
        going = place.ask("GET", path)
        assert going["status"]["phase"] == "Terminating" and going["metadata"]["deletionTimestamp"]
        late = refused(place, "POST", f"{path}/configmaps", config("late"))
        assert late.status == 403 and "because it is being terminated" in late.message

        def said() -> list[str]:
            conditions = place.ask("GET", path)["status"].get("conditions") or []
            return [one["message"] for one in conditions if one["type"] == "NamespaceFinalizersRemaining"]

        [message] = until(said, "the namespace says what it waits for")
        assert "labs.example/hold in 1 resource instances" in message
    finally:
        change = {"metadata": {"finalizers": None}}
        place.ask("PATCH", f"{path}/configmaps/held", change, content_type=kube_api.MERGE_PATCH)

    def is_gone() -> bool:
        try:
            place.ask("GET", path)
        except RefusedError as refusal:
            return refusal.status == 404
        return False

    until(is_gone, "the namespace is gone")


# --- Watches ---


def test_a_watch_tells_each_change_after_its_version_and_what_no_longer_fits_as_deleted(place: Place) -> None:
    place.ask("POST", "configmaps", config("before", {"of": "test"}))
    version = place.ask("GET", "configmaps")["metadata"]["resourceVersion"]
    place.ask("POST", "configmaps", config("a", {"of": "test"}))
    place.ask("POST", "configmaps", config("other"))
    merge = {"content_type": kube_api.MERGE_PATCH}
    place.ask("PATCH", "configmaps/a", {"data": {"x": "1"}}, **merge)
    place.ask("PATCH", "configmaps/a", {"metadata": {"labels": {"of": "nobody"}}}, **merge)
    place.ask("DELETE", "configmaps/before")
    path = f"/api/v1/namespaces/{place.namespace}/configmaps"
    seen = kube_api.watch(
        place.api_client, path, selector="of=test", version=version, deadline=Deadline.within(WITHIN_S)
    )
    told = [(kind, one["metadata"]["name"]) for kind, one in (next(seen) for _ in range(4))]
    seen.close()
    assert told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("DELETED", "before")]
