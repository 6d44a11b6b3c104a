"""Label and field selectors, as a list or a watch carries them.

Belongs here: their syntax and what they mean. Doesn't belong here: which fields a kind has (kinds.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lab_pipelines.rehearsal.admission import RefusedError
from tests.support.kube.kinds import FIELDS, Kind, selectable

Json = dict[str, Any]
Matches = Callable[[Json], bool]

_TERM = re.compile(
    r"\s*(?:(?P<key>[\w./-]+)\s+(?P<set>in|notin)\s*\((?P<values>[^)]*)\)|(?P<equal>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|(?P<absent>!)?\s*(?P<exists>[\w./-]+))\s*(?:,|$)"
)


def of_query(kind: Kind, query: Mapping[str, str]) -> Matches:
    """What `labelSelector` and `fieldSelector` of a request let through. Raises `RefusedError`."""
    labels, fields = by_labels(query.get("labelSelector", "")), _by_fields(kind, query.get("fieldSelector", ""))
    return lambda one: labels(one["metadata"].get("labels") or {}) and fields(one)


def by_labels(selector: str) -> Callable[[Mapping[str, str]], bool]:
    """Raises `RefusedError` for one that can't be read."""
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while at < len(selector):
        if (term := _TERM.match(selector, at)) is None:
            raise RefusedError(400, "BadRequest", f"unable to parse requirement: {selector[at:]!r}")
        tests.append(_test(term))
        at = term.end()
    return lambda labels: all(test(labels) for test in tests)


def _test(term: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if key := term["key"]:
        values = {value.strip() for value in term["values"].split(",")}
        return (lambda found: found.get(key) in values) if term["set"] == "in" else lambda f: f.get(key) not in values
    if key := term["equal"]:
        value = term["value"]
        return (lambda found: found.get(key) != value) if term["op"] == "!=" else lambda found: found.get(key) == value
    key = term["exists"]
    return (lambda found: key not in found) if term["absent"] else lambda found: key in found


def by_object(selector: Json | None) -> Callable[[Mapping[str, str]], bool]:
    """A `LabelSelector` as objects have it; an empty one selects everything, none at all nothing."""
    if selector is None:
        return lambda labels: False
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or []:
        key, values = one["key"], ",".join(one.get("values") or [])
        written = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}
        terms.append(written.get(one["operator"], f"!{key}"))
    return by_labels(",".join(terms))


def _by_fields(kind: Kind, selector: str) -> Matches:
    tests: list[tuple[str, str, bool]] = []
    for term in filter(None, selector.split(",")):
        path, negative, value = re.fullmatch(r"([\w.]+)(!)?==?(.*)", term).groups()  # pyright: ignore[reportOptionalMemberAccess]
        if path not in selectable(kind):
            # Kinds with fields of their own say it in other words than the rest.
            known = f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            own = kind.plural in FIELDS
            raise RefusedError(400, "BadRequest", f"field label not supported: {path}" if own else known)
        tests.append((path, value, negative is None))
    return lambda one: all((_field(one, path) == value) is wanted for path, value, wanted in tests)


def _field(one: Json, path: str) -> str:
    value: Any = one
    for part in path.split("."):
        value = (value or {}).get(part)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
