"""Kinds that a definition brings: KEDA's and the Prometheus operator's real ones, each under a group of the test's own.

Under their own names they would be everybody's: two tests at once, and whatever the cluster has of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from resources import kube_api
from resources.kube_api import RefusedError
from tests.support.contract import Place, unique, until
from tests.support.kube_api import CRDS

pytestmark = pytest.mark.cluster


class Custom(NamedTuple):
    """A kind as it is served."""

    kind: str
    version: str
    path: str


EXAMPLES: dict[str, dict[str, Any]] = {
    "ServiceMonitor": {"selector": {"matchLabels": {"app": "a"}}, "endpoints": [{"port": "http", "interval": "5s"}]},
    "PodMonitor": {"selector": {}, "podMetricsEndpoints": [{"port": "http"}]},
    "PrometheusRule": {"groups": [{"name": "g", "rules": [{"record": "a:b", "expr": "up"}]}]},
    "ScaledObject": {"scaleTargetRef": {"name": "a"}, "triggers": [{"type": "cpu", "metadata": {"value": "60"}}]},
    "TriggerAuthentication": {"secretTargetRef": [{"parameter": "p", "name": "s", "key": "k"}]},
}


@pytest.fixture(params=sorted(CRDS.glob("*.yaml")), ids=lambda path: path.stem)
def custom(request: pytest.FixtureRequest, place: Place) -> Iterator[Custom]:
    definition = yaml.safe_load(request.param.read_text(encoding="utf-8"))
    group, plural = f"{unique('g')}.labs.example", definition["spec"]["names"]["plural"]
    definition["metadata"] = {"name": f"{plural}.{group}"}
    definition["spec"]["group"] = group
    definition["spec"]["names"].pop("categories", None)
    definition["spec"]["names"].pop("shortNames", None)  # of which there can be one in a cluster
    collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    place.ask("POST", collection, definition)
    version = f"{group}/{definition['spec']['versions'][0]['name']}"
    try:
        until(lambda: served(place, version), f"{version} is served")
        path = f"/apis/{version}/namespaces/{place.namespace}/{plural}"
        yield Custom(definition["spec"]["names"]["kind"], version, path)
    finally:
        place.ask("DELETE", f"{collection}/{plural}.{group}")


def served(place: Place, version: str) -> bool:
    try:
        return bool(place.ask("GET", f"/apis/{version}")["resources"])
    except RefusedError:
        return False


def apply(place: Place, custom: Custom, spec: dict[str, Any]) -> Any:
    body = {"apiVersion": custom.version, "kind": custom.kind, "metadata": {"name": "a"}, "spec": spec}
    query = {"fieldManager": "lab-pipelines", "force": "true"}
    return place.ask("PATCH", f"{custom.path}/a", body, query=query, content_type=kube_api.APPLY_PATCH)


def test_an_object_of_a_defined_kind_is_kept_and_one_that_breaks_its_schema_is_not(
    place: Place, custom: Custom
) -> None:
    spec = EXAMPLES[custom.kind]
    assert apply(place, custom, spec)["spec"].items() >= spec.items()
    assert [one["metadata"]["name"] for one in place.ask("GET", custom.path)["items"]] == ["a"]
    with pytest.raises(RefusedError, match=r"\.spec\.intervall: field not declared in schema"):
        apply(place, custom, {**spec, "intervall": "5s"})
    field = next(iter(spec))
    with pytest.raises(RefusedError):
        apply(place, custom, {**spec, field: 7})
