"""Who owns which field: server-side apply, merge patches, and what an update takes over.

Belongs here: pure functions over objects and sets of field paths. Doesn't belong here: storing either (store.py).
Source of the rules: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lab_pipelines.rehearsal.admission import RefusedError

Json = dict[str, Any]
Path = tuple[Any, ...]
"""Names of fields, and for an element of a list with keys the keys and their values, as a tuple of pairs."""

_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "ownerReferences": ("uid",),
    "webhooks": ("name",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_NOBODYS = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}
_SERVERS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "deletionTimestamp")


class Manager(NamedTuple):
    """A writer, as `managedFields` names it."""

    name: str
    operation: str
    """`Apply` or `Update`."""


Owners = Mapping[Manager, frozenset[Path]]


def _keys(name: str, items: list[Any]) -> tuple[str, ...] | None:
    """The keys of a list that is merged element by element; None for one that is one value."""
    keys = _KEYS.get(name)
    if name == "ports":
        keys = ("containerPort", "protocol") if any("containerPort" in one for one in items) else ("port", "protocol")
    if keys is None or not all(isinstance(one, dict) and keys[0] in one for one in items):
        return None
    return keys


def _key(item: Json, keys: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, item.get(key, "TCP" if key == "protocol" else None)) for key in keys)


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that somebody can own, with its path."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            here = (*path, name)
            if not (here in _NOBODYS or (path == ("metadata",) and name in _SERVERS)):
                yield from leaves(inner, here)
    elif isinstance(value, list) and path and (keys := _keys(str(path[-1]), value)) and value:
        for item in value:
            yield from leaves(item, (*path, _key(item, keys)))
    elif path:
        yield path, value


def apply(current: Json, config: Json, owners: Owners, manager: Manager, *, force: bool) -> tuple[Json, Owners]:
    """What a server-side apply makes of an object, and who owns what then. Raises `RefusedError` for conflicts."""
    wanted, there = dict(leaves(config)), dict(leaves(current))
    others = {who: paths for who, paths in owners.items() if who != manager}
    conflicts = [
        (who, path)
        for who, paths in sorted(others.items())
        for path in sorted(paths & wanted.keys(), key=str)
        if there.get(path) != wanted[path]
    ]
    if conflicts and not force:
        said = ", ".join(f'conflict with "{who.name}": {_written(path)}' for who, path in conflicts)
        count = f"{len(conflicts)} conflict{'s' if len(conflicts) > 1 else ''}"
        raise RefusedError(409, "Conflict", f"Apply failed with {count}: {said}")
    made = copy.deepcopy(current)
    for path in owners.get(manager, frozenset()) - wanted.keys():
        if not any(path in paths for paths in others.values()):
            _remove(made, path)
    _merge(made, config)
    lost = {path for _, path in conflicts}
    left = {who: paths - lost for who, paths in others.items() if paths - lost}
    return made, {**left, manager: frozenset(wanted)}


def updated(before: Json, after: Json, owners: Owners, manager: Manager) -> Owners:
    """Who owns what after an update: the writer has what it changed."""
    was, is_now = dict(leaves(before)), dict(leaves(after))
    changed = frozenset(path for path, value in is_now.items() if path not in was or was[path] != value)
    gone = was.keys() - is_now.keys()
    kept = {who: paths - changed - gone for who, paths in owners.items()}
    mine = kept.get(manager, frozenset()) | changed
    return {who: paths for who, paths in {**kept, manager: mine}.items() if paths}


def merge_patch(current: Json, patch: Json) -> Json:
    """RFC 7396."""
    made = dict(current)
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            former = made.get(name)
            made[name] = merge_patch(former if isinstance(former, dict) else {}, value)
        else:
            made[name] = value
    return made


def strategic_merge_patch(current: Json, patch: Json) -> Json:
    """A merge patch in which lists with keys are merged element by element."""
    made = dict(current)
    for name, value in patch.items():
        former = made.get(name)
        if name.startswith("$"):
            continue  # orders and retained keys: nothing of ours depends on either
        if value is None:
            made.pop(name, None)
        elif isinstance(value, dict):
            made[name] = strategic_merge_patch(former if isinstance(former, dict) else {}, value)
        elif isinstance(value, list) and isinstance(former, list) and (keys := _keys(name, value)):
            items = {_key(one, keys): one for one in former}
            for item in value:
                key = _key(item, keys)
                if item.get("$patch") == "delete":
                    items.pop(key, None)
                else:
                    items[key] = strategic_merge_patch(items.get(key, {}), item)
            made[name] = list(items.values())
        else:
            made[name] = value
    return made


def json_patch(current: Json, patch: list[Json]) -> Json:
    """RFC 6902, without `move` and `copy`. Raises `RefusedError` when a test fails."""
    made = copy.deepcopy(current)
    for one in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
        place: Any = made
        for part in parents:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if one["op"] == "test" and place.get(last) != one.get("value"):
            raise RefusedError(422, "Invalid", f"the server rejected our request: test of {one['path']} failed")
        if isinstance(place, list):
            at = len(place) if last == "-" else int(last)
            place[at : at + (one["op"] != "add")] = [one["value"]] if one["op"] != "remove" else []
        elif one["op"] == "remove":
            place.pop(last, None)
        else:
            place[last] = one.get("value")
    return made


def owners_of(managed: list[Json]) -> Owners:
    """What `metadata.managedFields` says, as a client may write it too."""
    return {Manager(one["manager"], one["operation"]): frozenset(_paths(one["fieldsV1"], ())) for one in managed}


def _paths(said: Json, path: Path) -> Iterator[Path]:
    for name, inner in said.items():
        if name != ".":
            part = name[2:] if name.startswith("f:") else tuple(json.loads(name[2:]).items())
            yield from _paths(inner, (*path, part)) if inner else [(*path, part)]


def managed_fields(owners: Owners, api_version: str, at: str) -> list[Json]:
    """`metadata.managedFields`, in its own notation."""
    return [
        {
            "manager": who.name,
            "operation": who.operation,
            "apiVersion": api_version,
            "time": at,
            "fieldsType": "FieldsV1",
            "fieldsV1": _fields_v1(paths),
        }
        for who, paths in sorted(owners.items())
    ]


def _fields_v1(paths: frozenset[Path]) -> Json:
    root: Json = {}
    for path in sorted(paths, key=str):
        place = root
        for part in path:
            place = place.setdefault(f"f:{part}" if isinstance(part, str) else f"k:{json.dumps(dict(part))}", {})
    return root


def _merge(into: Json, config: Json) -> None:
    for name, value in config.items():
        former = into.get(name)
        if isinstance(value, dict) and isinstance(former, dict):
            _merge(former, value)
        elif isinstance(value, list) and isinstance(former, list) and (keys := _keys(name, [*value, *former])):
            items = {_key(one, keys): one for one in former}
            for item in value:
                if (there := items.get(_key(item, keys))) is not None:
                    _merge(there, item)
                else:
                    former.append(copy.deepcopy(item))
        else:
            into[name] = copy.deepcopy(value)


def _remove(value: Any, path: Path) -> bool:
    """Remove what is at the path, and whatever is empty without it; whether anything of `value` is left."""
    first, rest = path[0], path[1:]
    if isinstance(first, str):
        if isinstance(value, dict) and first in value and (not rest or not _remove(value[first], rest)):
            del value[first]
    elif isinstance(value, list):
        keys = tuple(name for name, _ in first)
        for item in [one for one in value if _key(one, keys) == first]:
            if not rest or not _remove(item, rest):
                value.remove(item)
    return bool(value)


def _written(path: Path) -> str:
    return "".join(f".{part}" if isinstance(part, str) else f"[{_pairs(part)}]" for part in path)


def _pairs(part: tuple[tuple[str, Any], ...]) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in part)
