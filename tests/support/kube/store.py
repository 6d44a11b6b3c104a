"""The objects of the double, their versions and every change to them.

Belongs here: reading, writing and removing objects, resource versions, the history that watches read, what goes with
an owner. Doesn't belong here: HTTP (server.py), what an object may be (objects.py), or what controllers do about it.

An object in the store is never changed, only replaced, so a reader needs no copy of it.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.support.kube import statuses
from tests.support.kube.kinds import Json, Kind


class Key(NamedTuple):
    """Where an object is. `namespace` is empty for one that belongs to the whole cluster."""

    resource: str
    namespace: str
    name: str


class Change(NamedTuple):
    """One change. `before` is None for what is new, and `after` has the last state of what is gone."""

    version: int
    type: str
    key: Key
    before: Json | None
    after: Json


class Store:
    """Everything, under one lock."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        """The lock of everything below; notified at each change."""
        self.version = 100
        self.history: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: dict[str, dict[str, dict[str, Json]]] = defaultdict(lambda: defaultdict(dict))
        self._dependents: dict[str, set[Key]] = defaultdict(set)
        self._written: dict[Key, tuple[str, bytes]] = {}

    def get(self, key: Key) -> Json | None:
        return self._objects[key.resource][key.namespace].get(key.name)

    def of(self, resource: str, namespace: str | None = None) -> list[Json]:
        """The objects of a resource, of one namespace or of all (None)."""
        by_namespace = self._objects[resource]
        if namespace is not None:
            return list(by_namespace[namespace].values()) if namespace in by_namespace else []
        return [one for part in by_namespace.values() for one in part.values()]

    def keys(self, resource: str, namespace: str | None = None) -> list[Key]:
        """In the order of a list: by namespace, then by name."""
        by_namespace = self._objects[resource]
        places = sorted(by_namespace) if namespace is None else [namespace]
        return [Key(resource, place, name) for place in places for name in sorted(by_namespace[place])]

    def everything(self, namespace: str | None = None) -> Iterator[Key]:
        for resource, by_namespace in self._objects.items():
            for place in list(by_namespace) if namespace is None else [namespace]:
                for name in list(by_namespace.get(place, ())):
                    yield Key(resource, place, name)

    def put(self, key: Key, obj: Json) -> Json:
        """Store an object, new or in place of a former one; the object as it is stored."""
        before = self.get(key)
        if before is not None and _same(before, obj):
            return before
        self.version += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.version)}
        if before is None:
            metadata = {"uid": _uid(self.version), "creationTimestamp": statuses.now(), **metadata}
            if "spec" in obj:
                metadata["generation"] = 1
        elif "generation" in before["metadata"]:
            more = before.get("spec") != obj.get("spec")
            metadata["generation"] = before["metadata"]["generation"] + more
        made = {**obj, "metadata": metadata}
        self._objects[key.resource][key.namespace][key.name] = made
        for owner in metadata.get("ownerReferences") or []:
            self._dependents[owner.get("uid", "")].add(key)
        self._note("MODIFIED" if before else "ADDED", key, before, made)
        return made

    def remove(self, key: Key, *, dependents: bool = True) -> None:
        """Remove an object that no finalizer holds up, and what it owns."""
        gone = self._objects[key.resource][key.namespace].pop(key.name, None)
        if gone is None:
            return
        self._written.pop(key, None)
        self.version += 1
        last = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        self._note("DELETED", key, gone, last)
        for dependent in sorted(self._dependents.pop(gone["metadata"]["uid"], ())) if dependents else ():
            self.delete(dependent)

    def delete(self, key: Key, *, dependents: bool = True) -> Json | None:
        """Delete an object as a client asks for it: one with finalizers stays until they are gone."""
        there = self.get(key)
        if there is None:
            return None
        if there["metadata"].get("finalizers"):
            if "deletionTimestamp" not in there["metadata"]:
                there = self.put(key, {**there, "metadata": {**there["metadata"], "deletionTimestamp": statuses.now()}})
        else:
            self.remove(key, dependents=dependents)
        return there

    def written(self, key: Key) -> bytes:
        """An object as JSON, written once for each of its versions: 10,000 pods are listed from these."""
        obj = self._objects[key.resource][key.namespace][key.name]
        version = obj["metadata"]["resourceVersion"]
        if (known := self._written.get(key)) is None or known[0] != version:
            known = self._written[key] = (version, json.dumps(obj).encode())
        return known[1]

    def _note(self, change: str, key: Key, before: Json | None, after: Json) -> None:
        noted = Change(self.version, change, key, before, after)
        self.history.append(noted)
        self.changed.notify_all()
        for listener in self.listeners:
            listener(noted)


def key_of(kind: Kind, namespace: str | None, name: str) -> Key:
    return Key(kind.resource, namespace or "" if kind.namespaced else "", name)


def _uid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def _same(one: Json, other: Json) -> bool:
    """Whether nothing but the bookkeeping of writes differs."""
    return _told(one) == _told(other)


def _told(obj: Json) -> Json:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in ("resourceVersion", "generation")}
    owned = [{**one, "time": None} for one in metadata.get("managedFields") or []]
    return {**obj, "metadata": {**metadata, "managedFields": owned}}
