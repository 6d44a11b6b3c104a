"""The verbs of the double on its objects: get, list, create, apply, patch, replace, delete, evict.

Belongs here: one request to one object or collection, as an API server of 1.36 answers it. Doesn't belong here: HTTP
(tests/support/kube_api.py), watches (watches.py), what is admitted (admitting.py).
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube import admitting, eviction, fields, selectors, statuses
from tests.support.kube.fields import Manager, Owners
from tests.support.kube.kinds import BUILT_IN, Json, Kind, defined_by
from tests.support.kube.store import Change, Key, Store, key_of

APPLY = "application/apply-patch+yaml"
PATCHES: Mapping[str | None, Callable[[Json, Any], Json]] = {
    "application/merge-patch+json": fields.merge_patch,
    "application/strategic-merge-patch+json": fields.strategic_merge_patch,
    "application/json-patch+json": fields.json_patch,
}


class Asked(NamedTuple):
    """What a request is about."""

    kind: Kind
    namespace: str | None
    name: str | None
    subresource: str | None

    @property
    def key(self) -> Key:
        return key_of(self.kind, self.namespace, self.name or "")


@dataclass
class Objects:
    """The objects behind the API, with the rules of writing them."""

    store: Store
    kinds: dict[str, list[Kind]] = field(default_factory=dict)
    """By API version."""
    _owners: dict[str, Owners] = field(default_factory=dict)
    """Of every field of an object, by its uid."""

    def __post_init__(self) -> None:
        self._serve(BUILT_IN)
        self.store.listeners.append(self._on_change)

    def _serve(self, kinds: tuple[Kind, ...] | list[Kind]) -> None:
        for kind in kinds:
            served = [one for one in self.kinds.get(kind.api_version, []) if one.plural != kind.plural]
            self.kinds[kind.api_version] = [*served, kind]

    def _on_change(self, change: Change) -> None:
        if change.key.resource == "customresourcedefinitions.apiextensions.k8s.io":
            kinds = defined_by(change.after)
            if change.type != "DELETED":
                self._serve(kinds)
                return
            for kind in kinds:
                self.kinds[kind.api_version] = [
                    one for one in self.kinds[kind.api_version] if one.plural != kind.plural
                ]
                for key in self.store.keys(kind.resource):
                    self.store.remove(key)
        elif change.type == "DELETED":
            self._owners.pop(change.after["metadata"]["uid"], None)

    def kind(self, api_version: str, plural: str) -> Kind | None:
        return next((one for one in self.kinds.get(api_version, []) if one.plural == plural), None)

    def kind_named(self, api_version: str, name: str) -> Kind:
        return next(one for one in self.kinds[api_version] if one.kind == name)

    # --- Reading ---

    def get(self, asked: Asked) -> Json:
        if (found := self.store.get(asked.key)) is None:
            raise self._not_found(asked)
        if asked.kind.resource == "resourcequotas":
            # Its controller counts a moment after the quota was made: the first to ask sees it not counted yet.
            self.store.put(asked.key, {**found, "status": admitting.quota_status(self.store, found)})
        return found

    def list(self, asked: Asked, query: Mapping[str, str]) -> bytes:
        kind, matches = asked.kind, selectors.of_query(asked.kind, query)
        if kind.resource == "resourcequotas":
            for key in self.store.keys(kind.resource, asked.namespace):
                quota = self.store.get(key) or {}
                self.store.put(key, {**quota, "status": admitting.quota_status(self.store, quota)})
        namespace = asked.namespace if kind.namespaced else ""
        keys = self.store.keys(kind.resource, namespace)
        if "labelSelector" in query or "fieldSelector" in query:
            keys = [key for key in keys if matches(self.store.get(key) or {})]
        metadata: Json = {"resourceVersion": str(self.store.version)}
        if token := query.get("continue"):
            after = Key(*json.loads(base64.urlsafe_b64decode(token)))
            keys = [key for key in keys if key > after]
        if (limit := int(query.get("limit") or 0)) and len(keys) > limit:
            metadata["remainingItemCount"] = len(keys) - limit
            keys = keys[:limit]
            metadata["continue"] = base64.urlsafe_b64encode(json.dumps(keys[-1]).encode()).decode()
        head = json.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata})[:-1]
        items = b",".join(self.store.written(key) for key in keys)
        return head.encode() + b', "items": [' + items + b"]}"

    # --- Writing ---

    def create(self, asked: Asked, body: Json, query: Mapping[str, str], manager: str) -> Json:
        metadata = dict(body.get("metadata") or {})
        if "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{self.store.version:05d}"
        asked = asked._replace(name=metadata["name"])
        if self.store.get(asked.key) is not None:
            said = f'{asked.kind.resource} "{asked.name}" already exists'
            raise RefusedError(409, "AlreadyExists", said)
        made = self._complete(asked, {**body, "metadata": metadata})
        admitting.check(asked.kind, made, applied=False, query=query)
        owners = fields.updated({}, made, {}, Manager(manager, "Update"))
        return self._new(asked, made, owners, query)

    def apply(self, asked: Asked, body: Json, query: Mapping[str, str]) -> tuple[int, Json]:
        if "fieldManager" not in query:
            said = "PatchOptions.fieldManager: Required value: is required for apply patch"
            raise RefusedError(400, "BadRequest", said)
        made = self._complete(asked, body)
        admitting.check(asked.kind, made, applied=True, query=query)
        manager, there = Manager(query["fieldManager"], "Apply"), self.store.get(asked.key)
        if there is None:
            _, owners = fields.apply({}, made, {}, manager, force=True)
            return 201, self._new(asked, made, owners, query)
        former = self._owners.get(there["metadata"]["uid"], {})
        force = query.get("force") == "true"
        after, owners = fields.apply(there, made, former, manager, force=force)
        return 200, self._replaced(asked, there, after, owners, query)

    def patch(self, asked: Asked, body: Any, query: Mapping[str, str], manager: str, content_type: str) -> Json:
        there = self.get(asked)
        after = PATCHES[content_type](copy.deepcopy(there), body)
        managed = after["metadata"].get("managedFields")
        if managed != there["metadata"].get("managedFields"):
            # Somebody moves fields from one manager to another, as Helm does before its first apply.
            self._owners[there["metadata"]["uid"]] = fields.owners_of(managed or [])
        return self._update(asked, there, after, after, query, manager)

    def put(self, asked: Asked, body: Json, query: Mapping[str, str], manager: str) -> Json:
        there = self.get(asked)
        if asked.subresource == "status":
            after = {**there, "status": body.get("status") or {}}
        else:
            after = {**body, **({"status": there["status"]} if "status" in there else {})}
        return self._update(asked, there, self._complete(asked, after), body, query, manager)

    def _update(
        self, asked: Asked, there: Json, after: Json, body: Json, query: Mapping[str, str], manager: str
    ) -> Json:
        self._hold_to(asked, there, body.get("metadata") or {})
        admitting.check(asked.kind, after, applied=False, query=query)
        former = self._owners.get(there["metadata"]["uid"], {})
        owners = fields.updated(there, after, former, Manager(manager, "Update"))
        return self._replaced(asked, there, after, owners, query)

    def delete(self, asked: Asked, query: Mapping[str, str], options: Json) -> Json:
        there = self.get(asked)
        self._hold_to(asked, there, options.get("preconditions") or {})
        if "dryRun" in query:
            return there
        policy = query.get("propagationPolicy") or options.get("propagationPolicy")
        if asked.kind.resource == "namespaces":
            status = {**there["status"], "phase": "Terminating"}
            metadata = {"deletionTimestamp": statuses.now(), **there["metadata"]}
            return self.store.put(asked.key, {**there, "metadata": metadata, "status": status})
        return self.store.delete(asked.key, dependents=policy != "Orphan") or there

    def delete_all(self, asked: Asked, query: Mapping[str, str]) -> Json:
        matches = selectors.of_query(asked.kind, query)
        for key in self.store.keys(asked.kind.resource, asked.namespace):
            if (one := self.store.get(key)) is not None and matches(one):
                self.store.delete(key, dependents=query.get("propagationPolicy") != "Orphan")
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def evict_pod(self, asked: Asked) -> Json:
        self.get(asked)
        eviction.evict(self.store, asked.key)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    # --- What every write goes through ---

    def _complete(self, asked: Asked, body: Json) -> Json:
        """The object with kind and place said, and nothing that only the server may say."""
        metadata = {**(body.get("metadata") or {}), "name": asked.name}
        if asked.kind.namespaced:
            metadata["namespace"] = asked.namespace
        for name in ("managedFields", "resourceVersion"):
            metadata.pop(name, None)
        return {**body, "apiVersion": asked.kind.api_version, "kind": asked.kind.kind, "metadata": metadata}

    def _new(self, asked: Asked, body: Json, owners: Owners, query: Mapping[str, str]) -> Json:
        kind, key = asked.kind, asked.key
        if kind.namespaced:
            self._hold_to_namespace(asked)
        made = admitting.with_defaults(kind, body, number=self.store.version)
        admitting.hold_to_quota(self.store, kind, key, made)
        for name in ("uid", "creationTimestamp", "generation", "deletionTimestamp"):
            made["metadata"].pop(name, None)
        made["metadata"]["managedFields"] = fields.managed_fields(owners, kind.api_version, statuses.now())
        if "dryRun" in query:
            return made
        stored = self.store.put(key, made)
        self._owners[stored["metadata"]["uid"]] = owners
        return stored

    def _replaced(self, asked: Asked, there: Json, after: Json, owners: Owners, query: Mapping[str, str]) -> Json:
        kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp")
        metadata = {
            **after["metadata"],
            **{name: there["metadata"][name] for name in kept if name in there["metadata"]},
        }
        metadata["managedFields"] = fields.managed_fields(owners, asked.kind.api_version, statuses.now())
        made = {**after, "metadata": metadata}
        if asked.kind.resource == "secrets":
            plain = made.pop("stringData", None) or {}
            made["data"] = {
                **made.get("data", {}),
                **{k: base64.b64encode(v.encode()).decode() for k, v in plain.items()},
            }
        if "dryRun" in query:
            return made
        self._owners[there["metadata"]["uid"]] = owners
        stored = self.store.put(asked.key, made)
        if "deletionTimestamp" in metadata and not metadata.get("finalizers") and asked.kind.resource != "namespaces":
            self.store.remove(asked.key)
        return stored

    def _hold_to(self, asked: Asked, there: Json, wanted: Mapping[str, Any]) -> None:
        """Preconditions: of an update its resourceVersion, of a deletion a uid."""
        metadata = there["metadata"]
        if wanted.get("uid", metadata["uid"]) != metadata["uid"]:
            said = f"Precondition failed: UID in precondition: {wanted['uid']}, UID in object meta: {metadata['uid']}"
        elif wanted.get("resourceVersion") not in (None, "", metadata["resourceVersion"]):
            said = "the object has been modified; please apply your changes to the latest version and try again"
        else:
            return
        raise RefusedError(
            409, "Conflict", f'Operation cannot be fulfilled on {asked.kind.resource} "{asked.name}": {said}'
        )

    def _hold_to_namespace(self, asked: Asked) -> None:
        namespace = self.store.get(Key("namespaces", "", asked.namespace or ""))
        if namespace is None:
            raise RefusedError(404, "NotFound", f'namespaces "{asked.namespace}" not found')
        if "deletionTimestamp" in namespace["metadata"]:
            said = f"unable to create new content in namespace {asked.namespace} because it is being terminated"
            raise RefusedError(403, "Forbidden", f'{asked.kind.resource} "{asked.name}" is forbidden: {said}')

    def _not_found(self, asked: Asked) -> RefusedError:
        return RefusedError(404, "NotFound", f'{asked.kind.resource} "{asked.name}" not found')
