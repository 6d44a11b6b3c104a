"""What the API server makes of an object before it is stored: validation, defaults, quota.

Belongs here: refusals with a real server's status and words. Doesn't belong here: the rules of a pod with GPUs
(lab_pipelines/rehearsal/admission.py), storing (objects.py).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jsonschema

from lab_pipelines.rehearsal.admission import RefusedError, admit, quantity, used
from tests.support.kube import statuses
from tests.support.kube.kinds import Json, Kind
from tests.support.kube.store import Key, Store
from tests.support.kube_types import mistakes

_UNKNOWN = ": field not declared in schema"
_WRONG_TYPE = ": expected "


def check(kind: Kind, body: Json, *, applied: bool, query: Mapping[str, str]) -> None:
    """Refuse what is not of its kind. An apply is always strict, a write is if it asks for that."""
    wrong = _mistakes_of_custom(kind, body) if kind.custom else _misread(body)
    untyped = [said for said in wrong if said.endswith(_UNKNOWN) or _WRONG_TYPE in said]
    if untyped and applied:
        where = "/".join(filter(None, (body["metadata"].get("namespace"), body["metadata"].get("name"))))
        what = f"failed to create typed patch object ({where}; {kind.api_version}, Kind={kind.kind})"
        raise RefusedError(500, "", f"{what}: {untyped[0]}")
    if unread := [said for said in untyped if _WRONG_TYPE in said]:
        raise RefusedError(400, "BadRequest", f"{kind.kind} in version {kind.version!r} cannot be handled: {unread[0]}")
    if untyped and query.get("fieldValidation") == "Strict":
        fields = ", ".join(f'unknown field "{said.removesuffix(_UNKNOWN).lstrip(".")}"' for said in untyped)
        raise RefusedError(400, "BadRequest", f"strict decoding error: {fields}")
    if invalid := [said for said in wrong if said not in untyped]:
        raise RefusedError(
            422, "Invalid", f'{kind.qualified} "{body["metadata"].get("name")}" is invalid: {invalid[0]}'
        )


def _misread(body: Json) -> list[str]:
    """Fields of a built-in kind that it doesn't have, or that are of another type."""
    return [said for said in mistakes(body) if said.endswith(_UNKNOWN) or _WRONG_TYPE in said]


def _mistakes_of_custom(kind: Kind, body: Json) -> list[str]:
    if kind.schema is None:
        return []
    shape = {name: value for name, value in body.items() if name not in ("apiVersion", "kind", "metadata")}
    found = list(_undeclared(shape, kind.schema, ""))
    for error in jsonschema.Draft7Validator(_plain(kind.schema)).iter_errors(shape):
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "required":
            missing = error.message.split("'")[1]
            found.append(f"{'.'.join(filter(None, (path, missing)))}: Required value")
        else:
            found.append(f"{path}: Invalid value: {error.message}")
    return found


def _plain(schema: Any) -> Any:
    """Without what only Kubernetes gives a meaning; an IntOrString may be both."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _plain(value) for name, value in schema.items() if not name.startswith("x-") and name != "format"}
    return {
        name: value for name, value in kept.items() if not (name == "type" and "x-kubernetes-int-or-string" in schema)
    }


def _undeclared(value: Any, schema: Mapping[str, Any], path: str) -> list[str]:
    if isinstance(value, list) and "items" in schema:
        return [said for n, one in enumerate(value) for said in _undeclared(one, schema["items"], f"{path}[{n}]")]
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return []
    properties, rest = schema.get("properties"), schema.get("additionalProperties")
    found: list[str] = []
    for name, inner in value.items():
        if properties is not None and name in properties:
            found += _undeclared(inner, properties[name], f"{path}.{name}")
        elif isinstance(rest, dict):
            found += _undeclared(inner, rest, f"{path}.{name}")
        elif properties is not None:
            found.append(f"{path}.{name}{_UNKNOWN}")
    return found


def with_defaults(kind: Kind, body: Json, *, number: int) -> Json:
    """A new object with what the server fills in, as far as somebody reads it. `number`: one that nobody else has."""
    made = copy.deepcopy(body)
    match kind.resource:
        case "pods":
            made["status"] = {"phase": "Pending", "qosClass": "Burstable"}
            made["spec"].setdefault("restartPolicy", "Always")
        case "services" if made["spec"].get("type", "ClusterIP") != "ExternalName":
            made["spec"].setdefault("type", "ClusterIP")
            made["spec"].setdefault("clusterIP", f"10.96.{number // 250 % 250}.{number % 250 + 1}")
            made.setdefault("status", {"loadBalancer": {}})
        case "secrets":
            plain = made.pop("stringData", {})
            made["data"] = {**made.get("data", {}), **{name: _base64(text) for name, text in plain.items()}}
            made.setdefault("type", "Opaque")
        case "namespaces":
            made["spec"] = {"finalizers": ["kubernetes"]}
            made["status"] = {"phase": "Active"}
            made["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = made["metadata"]["name"]
        case "persistentvolumeclaims":
            made["status"] = {"phase": "Bound"}
        case "customresourcedefinitions.apiextensions.k8s.io":
            conditions = [{"type": one, "status": "True", "reason": one} for one in ("NamesAccepted", "Established")]
            made["status"] = {"conditions": conditions, "acceptedNames": made["spec"]["names"]}
        case "deployments.apps" | "replicasets.apps" | "statefulsets.apps":
            made["spec"].setdefault("replicas", 1)
            made.pop("status", None)
        case "jobs.batch":
            made["spec"] = {"parallelism": 1, "completions": 1, "backoffLimit": 6, **made["spec"]}
            made.pop("status", None)
    return made


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


def hold_to_quota(store: Store, kind: Kind, key: Key, body: Json) -> None:
    """Refuse what the namespace's quotas and limit ranges don't allow; fills in a LimitRange's defaults."""
    quotas = store.of("resourcequotas", key.namespace)
    for quota in quotas:
        hard = quota["spec"].get("hard") or {}
        for name in sorted({kind.plural, f"count/{kind.resource}"} & hard.keys()):
            there = len(_counted(store, kind.resource, key.namespace))
            if there + 1 > quantity(hard[name]):
                said = f"requested: {name}=1, used: {name}={there}, limited: {name}={hard[name]}"
                message = (
                    f'{kind.resource} "{key.name}" is forbidden: exceeded quota: {quota["metadata"]["name"]}, {said}'
                )
                raise RefusedError(403, "Forbidden", message)
    if kind.resource == "pods":
        others = _counted(store, "pods", key.namespace)
        amounts = [{**one, "spec": {**one["spec"], "hard": _amounts(one)}} for one in quotas]
        admit(body, limit_ranges=store.of("limitranges", key.namespace), quotas=amounts, others=others)


def _amounts(quota: Json) -> dict[str, str]:
    """The part of a quota that is about what pods ask for. `cpu` alone is a request."""
    hard = quota["spec"].get("hard") or {}
    named = {f"requests.{name}" if name in ("cpu", "memory") else name: amount for name, amount in hard.items()}
    return {name: amount for name, amount in named.items() if name.startswith(("requests.", "limits."))}


def _counted(store: Store, resource: str, namespace: str) -> list[Json]:
    return [one for one in store.of(resource, namespace) if not statuses.is_over(one)]


def quota_status(store: Store, quota: Json) -> Json:
    """`status` of a ResourceQuota, as its controller writes it."""
    hard, namespace = quota["spec"].get("hard") or {}, quota["metadata"]["namespace"]
    pods = _counted(store, "pods", namespace)
    amounts = used({**quota, "spec": {"hard": _amounts(quota)}}, pods)
    counts = Counter({name: len(_counted(store, name.removeprefix("count/"), namespace)) for name in hard})
    return {
        "hard": hard,
        "used": {name: str(amounts.get(f"requests.{name}", amounts.get(name, counts[name]))) for name in hard},
    }
