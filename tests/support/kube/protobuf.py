"""Bodies in Kubernetes' protobuf encoding, which Go clients of built-in kinds prefer to JSON: Helm's records come so.

Belongs here: decoding the few kinds that are sent in it. Doesn't belong here: answers, which may always be JSON.
Source of the numbers: the `generated.proto` of k8s.io/api/core/v1 and k8s.io/apimachinery.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


class _Field(NamedTuple):
    name: str
    form: str
    """`text`, `bytes`, `number`, `map` of texts, `map of bytes`, or the name of a message."""
    repeated: bool = False


_MESSAGES: Mapping[str, Mapping[int, _Field]] = {
    "TypeMeta": {1: _Field("apiVersion", "text"), 2: _Field("kind", "text")},
    "Unknown": {1: _Field("typeMeta", "TypeMeta"), 2: _Field("raw", "raw")},
    "Secret": {
        1: _Field("metadata", "ObjectMeta"),
        2: _Field("data", "map of bytes"),
        3: _Field("type", "text"),
        4: _Field("stringData", "map"),
        5: _Field("immutable", "number"),
    },
    "DeleteOptions": {
        1: _Field("gracePeriodSeconds", "number"),
        2: _Field("preconditions", "Preconditions"),
        4: _Field("propagationPolicy", "text"),
        5: _Field("dryRun", "text", repeated=True),
    },
    "Preconditions": {1: _Field("uid", "text"), 2: _Field("resourceVersion", "text")},
    "ObjectMeta": {
        1: _Field("name", "text"),
        2: _Field("generateName", "text"),
        3: _Field("namespace", "text"),
        5: _Field("uid", "text"),
        6: _Field("resourceVersion", "text"),
        11: _Field("labels", "map"),
        12: _Field("annotations", "map"),
        14: _Field("finalizers", "text", repeated=True),
    },
    "map": {1: _Field("key", "text"), 2: _Field("value", "text")},
    "map of bytes": {1: _Field("key", "text"), 2: _Field("value", "bytes")},
}


def decode(data: bytes) -> dict[str, Any]:
    """An object as its JSON would be. Raises `LookupError` for a kind that isn't known here."""
    unknown = _message("Unknown", data.removeprefix(_MAGIC))
    meta = unknown["typeMeta"]
    return {**meta, **_message(meta["kind"], unknown.get("raw", b""))}


def _message(name: str, data: bytes) -> dict[str, Any]:
    known, made = _MESSAGES[name], dict[str, Any]()
    for number, value in _wire(data):
        if (field := known.get(number)) is None or value == b"":
            continue
        if field.form.startswith("map"):
            entry = _message(field.form, value)
            made.setdefault(field.name, {})[entry["key"]] = entry.get("value", "")
        elif field.repeated:
            made.setdefault(field.name, []).append(_value(field.form, value))
        else:
            made[field.name] = _value(field.form, value)
    return made


def _value(form: str, value: Any) -> Any:
    match form:
        case "text":
            return value.decode()
        case "bytes":
            return base64.b64encode(value).decode()
        case "raw" | "number":
            return value
        case message:
            return _message(message, value)


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field: an integer, or the bytes of anything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        else:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at
