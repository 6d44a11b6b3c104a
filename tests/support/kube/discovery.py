"""What the double says of itself: versions, groups, resources, and as much of OpenAPI as Helm asks for.

Belongs here: discovery documents. Doesn't belong here: the kinds (kinds.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tests.support.kube.kinds import SUBRESOURCES, Json, Kind

VERSION: Json = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def answer(path: str, kinds: Mapping[str, Sequence[Kind]]) -> Json | None:
    """The document at a path; None where there is none."""
    served = {version: found for version, found in kinds.items() if found}
    names = sorted({one.group for found in served.values() for one in found if one.group})
    documents: dict[str, Callable[[], Json]] = {
        "/version": lambda: VERSION,
        "/api": lambda: {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": lambda: {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(one, served) for one in names]},
        "/openapi/v3": lambda: {"paths": {_root(one)[1:]: _place(one) for one in served}},
    }
    for name in names:
        documents[f"/apis/{name}"] = lambda n=name: {"kind": "APIGroup", "apiVersion": "v1", **_group(n, served)}
    for version, found in served.items():
        documents[_root(version)] = lambda v=version, f=found: _resource_list(v, f)
        documents[f"/openapi/v3{_root(version)}"] = lambda v=version, f=found: _openapi(v, f)
    return documents[path]() if path in documents else None


def _place(version: str) -> Json:
    return {"serverRelativeURL": f"/openapi/v3{_root(version)}"}


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _group(name: str, served: Mapping[str, Sequence[Kind]]) -> Json:
    names = [version for version, found in served.items() if found[0].group == name]
    versions = [{"groupVersion": one, "version": one.split("/")[1]} for one in names]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _resource_list(version: str, kinds: Sequence[Kind]) -> Json:
    subresources = [
        {"name": f"{kind.plural}/{one}", "kind": kind.kind, "namespaced": kind.namespaced, "verbs": ["get", "patch"]}
        for kind in kinds
        for one in SUBRESOURCES.get(kind.plural, ())
    ]
    resources = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "kind": kind.kind,
            "namespaced": kind.namespaced,
            "verbs": _VERBS,
        }
        for kind in kinds
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": [*subresources, *resources]}


def _openapi(version: str, kinds: Sequence[Kind]) -> Json:
    """What tells a client that the server checks fields itself: the parameter `fieldValidation` of each patch."""
    parameters = [{"name": name, "in": "query"} for name in ("fieldManager", "fieldValidation", "force", "dryRun")]
    paths = {}
    for kind in kinds:
        place = "/namespaces/{namespace}" if kind.namespaced else ""
        named = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        patch = {"parameters": parameters, "x-kubernetes-group-version-kind": named, "responses": {}}
        paths[f"{_root(version)}{place}/{kind.plural}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "paths": paths}
