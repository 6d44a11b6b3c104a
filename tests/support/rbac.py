"""What Kubernetes' RBAC makes of rules and requests, as far as deploy/rbac and our own requests need it.

Belongs here: (API group, resource, verb) from rules and from requests. Doesn't belong here: what should be granted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from lab_pipelines.deployment import REPO_ROOT

Grant = tuple[str, str, str]
"""(API group, resource with its subresource, verb); the core group is empty."""

RBAC_DIR = REPO_ROOT / "deploy" / "rbac"
_REQUEST = re.compile(
    r"^/(?:api/v1|apis/(?P<group>[\w.-]+)/\w+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+))?$"
)


def objects(directory: Path = RBAC_DIR) -> list[Mapping[str, Any]]:
    """Every object of the folder's files, in the files' order."""
    return [one for path in sorted(directory.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text("utf-8"))]


def roles() -> dict[str, list[Mapping[str, Any]]]:
    """The rules of each Role and ClusterRole, by name."""
    return {one["metadata"]["name"]: one["rules"] for one in objects() if one["kind"] in ("Role", "ClusterRole")}


def granted(rules: Iterable[Mapping[str, Any]]) -> set[Grant]:
    """Each single right that the rules give."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(method: str, path: str, query: Mapping[str, str]) -> Grant | None:
    """The right that a request needs; None for discovery and `/version`, which everybody may ask."""
    match = _REQUEST.match(path)
    if match is None:
        return None
    named = match["name"] is not None
    verbs = {
        "GET": "watch" if query.get("watch") == "true" else "get" if named else "list",
        "POST": "create",
        "PUT": "update",
        "PATCH": "patch",
        "DELETE": "delete" if named else "deletecollection",
    }
    resource = f"{match['plural']}/{match['sub']}" if match["sub"] else match["plural"]
    return match["group"] or "", resource, verbs[method]
