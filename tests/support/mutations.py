"""Ways to spoil a complete spec, each with the field that the complaint must name.

Belongs here: enumerating mutations of a spec from its own models, so that a new field is spoilt too.
Doesn't belong here: what must come of them (tests/unit/test_validation.py).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import NoneType
from typing import Any, get_args

import annotated_types
import yaml
from pydantic import BaseModel

try:
    from yaml import CSafeDumper as _Dumper
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeDumper as _Dumper

Place = tuple[str | int, ...]
FILE_FIELDS = {"values": "helm-values/", "manifests": "helm-values/", "prompts": "load-tests/", "sql": "warehouse/"}
NO_SUCH_FILES = [
    "{folder}../pyproject.toml",
    "{folder}../../../etc/passwd",
    "/etc/passwd",
    "~/secrets.yaml",
    "C:\\secrets.yaml",
    "{folder}",
    "{folder}no-such-file",
    "{folder}leads-outside",
    "{folder}a\x00b",
    "docs/setup.md",
    "",
]
BAD_PROMQL = [
    ")",  # appended
    "[5x]",
    " +",
    ' == bool "1"',
    "{",
    "$nothing",
    " # $",
    "\nsum(",
]


@dataclass(frozen=True)
class Mutation:
    """One mistake: what kind it is, where, and the file's text with it in."""

    kind: str
    place: Place
    """The field that is spoilt; a complaint names it, its parent or its child. Empty: the file, at whatever line."""
    text: Callable[[], str | bytes]
    """Writes the file; most of them are never asked to."""

    def __str__(self) -> str:
        return f"{self.kind} at {'.'.join(map(str, self.place))}"


def mutations(spec: BaseModel, data: dict[str, Any], source: str) -> Iterator[Mutation]:
    """Every mutation of a complete spec; `source` is its file's text and `data` what YAML reads there."""
    for kind, place, text in _of_the_text(source):
        yield Mutation(f"YAML: {kind}", place, partial(_same, text))
    for kind, place, edit in _of_the_data(spec, data):
        yield Mutation(kind, place, partial(_edited, data, edit))


Edit = Callable[[dict[str, Any]], None]


def _same(text: str | bytes) -> str | bytes:
    return text


def _edited(data: dict[str, Any], edit: Edit) -> str:
    spoilt = copy.deepcopy(data)
    edit(spoilt)
    return yaml.dump(spoilt, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _of_the_data(spec: BaseModel, data: dict[str, Any]) -> Iterator[tuple[str, Place, Edit]]:
    for place, model in _models(spec, data, ()):
        written = _at(data, place)
        for name, field in type(model).model_fields.items():
            here = (*place, name)
            if name not in written:
                continue
            if field.is_required():
                yield "missing field", here, _remove(here)
            # Without its kind, nobody knows what else a step may have.
            yield "misspelt field", here if name == "kind" else (*place, f"{name}_"), _rename(place, name)
            for wrong in _wrong_types(written[name]):
                yield "wrong type", here, _set(here, wrong)
            if NoneType not in get_args(field.annotation):
                yield "null", here, _set(here, None)
            if isinstance(written[name], int | float) and not isinstance(written[name], bool):
                yield from _out_of_bounds(here, field.metadata)
            yield from _bad_meaning(here, name, written[name])
        yield "unknown field", (*place, "colour"), _set((*place, "colour"), "blue")
    yield from _bad_references(data)


def _models(model: BaseModel, data: Any, place: Place) -> Iterator[tuple[Place, BaseModel]]:
    """Every model within a spec, with the place where the file has it."""
    yield place, model
    for name in type(model).model_fields:
        if name in data:
            yield from _models_in(getattr(model, name), data[name], (*place, name))


def _models_in(value: Any, data: Any, place: Place) -> Iterator[tuple[Place, BaseModel]]:
    if isinstance(value, BaseModel):
        yield from _models(value, data, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _models_in(item, data[index], (*place, index))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _models_in(item, data[key], (*place, key))


def _wrong_types(value: Any) -> list[Any]:
    match value:
        case bool():
            return ["sometimes", 3, []]
        case int() | float():
            return ["three", [1], True]
        case str():
            return [17, ["a"], {"a": 1}, False]
        case list():
            return ["one", 7, {"a": "b"}]
        case _:
            return ["one", 7, ["a"]]


def _out_of_bounds(here: Place, metadata: list[Any]) -> Iterator[tuple[str, Place, Edit]]:
    for bound in metadata:
        match bound:
            case annotated_types.Ge(ge=least):
                yield "below its bound", here, _set(here, least - 1)  # pyright: ignore[reportOperatorIssue]
            case annotated_types.Gt(gt=least):
                yield "at its open bound", here, _set(here, least)
                yield "negative", here, _set(here, -5.0)
                yield "not finite", here, _set(here, float("inf"))
                yield "not a number", here, _set(here, float("nan"))
            case annotated_types.Le(le=most):
                yield "above its bound", here, _set(here, most + 1)  # pyright: ignore[reportOperatorIssue]
            case annotated_types.Lt(lt=most):
                yield "at its open bound", here, _set(here, most)
            case _:
                pass
    yield "far too large", here, _set(here, float("1e400"))


def _bad_meaning(here: Place, name: str, value: Any) -> Iterator[tuple[str, Place, Edit]]:
    if name in {"promql", "counter"}:
        for tail in BAD_PROMQL:
            yield "bad PromQL", here, _set(here, value + tail)
        yield "PromQL without a selector", here, _set(here, value.replace("$selector", 'job="x"'))
        yield "unknown function", here, _set(here, f"summ({value})")
        yield "range as a value", here, _set(here, "up{$selector}[5m]")
        yield "endless PromQL", here, _set(here, "(" * 100_000 + value)
    if name == "unit":
        yield "bad unit", here, _set(here, "tokens/h")
    if name == "reason":
        yield "bad regular expression", here, _set(here, "(unclosed")
    if name in {"kind", "comparison", "over", "phase"} and isinstance(value, str):
        yield "unknown choice", here, _set(here, "nonsense")
    if name in {"id", "name", "alert"} and len(here) > 1:
        yield "bad name", here, _set(here, "Ω/../x y")
        yield "empty name", here, _set(here, "")
    if name in FILE_FIELDS and isinstance(value, str):
        for path in NO_SUCH_FILES:
            yield "bad file", here, _set(here, path.format(folder=FILE_FIELDS[name]))
        yield "bad file", here, _set(here, FILE_FIELDS[name] + "x" * 5000)


def _bad_references(data: dict[str, Any]) -> Iterator[tuple[str, Place, Edit]]:
    yield "wrong id", ("id",), _set(("id",), "L78" if data["id"] != "L78" else "L77")
    yield "no lab's id", ("id",), _set(("id",), "L6")
    yield "week outside its phase", ("week",), _set(("week",), 45 if data["phase"] < 8 else 1)
    yield "week outside the year", ("week",), _set(("week",), 99)
    yield "another lab's namespace", ("namespace",), _set(("namespace",), "lab-taken")
    for other in ("L99", data["id"], "L77", "l01", "L1"):
        yield "bad builds_on", ("builds_on",), _set(("builds_on",), [other])
    for index in range(len(data["nodes"])):
        sku, gpus = ("nodes", index, "sku"), ("nodes", index, "gpus")
        yield "unknown SKU", sku, _other_sku(index, "Standard_NC4as_T5_v3")
        yield "retired SKU", sku, _other_sku(index, "Standard_NC6s_v3")
        yield "too many GPUs", gpus, _set(gpus, 16)
    for name in ("variants", "steps", "measures", "findings"):
        if data[name]:
            yield "repeated", (name,), _append(name, data[name][0])
    yield "no target", ("targets",), _set(("targets",), [])
    yield "unknown target", ("targets",), _set(("targets",), ["cloud"])
    yield "unknown pace", ("default_pace",), _set(("default_pace",), dict.fromkeys(data["default_pace"], "warp"))
    yield "no pace of the target", ("default_pace",), _set(("default_pace",), {})
    yield "values of no component", ("variants",), _set(("variants", 0, "values"), {"nobody": {"a": 1}})
    yield from _bad_components(data)
    yield from _bad_steps_and_findings(data)


def _bad_components(data: dict[str, Any]) -> Iterator[tuple[str, Place, Edit]]:
    for index, component in enumerate(data["stack"].get("components", [])):
        chart: Place = ("stack", "components", index, "chart")
        yield "unknown chart", (*chart, "name"), _set((*chart, "name"), "no-such-chart")
        yield "unknown version", (*chart, "version"), _set((*chart, "version"), "99.0.0")
        yield "not a version", (*chart, "version"), _set((*chart, "version"), "latest")
        yield "another repository", (*chart, "repository"), _set((*chart, "repository"), "https://example.org/charts")
        override: Place = ("variants", 0, "values", component["name"])
        for path, value in {"noSuchKey.a": 1, "a[": 1, "a..b": 1, "": 1}.items():
            yield "bad override", (*override, path), _set(("variants", 0, "values"), {component["name"]: {path: value}})
        yield "repeated component", ("stack",), _append_component(component)


def _bad_steps_and_findings(data: dict[str, Any]) -> Iterator[tuple[str, Place, Edit]]:
    for index, step in enumerate(data["steps"]):
        component = ("steps", index, "component")
        if "component" in step:
            yield "unknown component", component, _set(component, "nobody")
        for at, request in enumerate(step.get("requests", [])):
            if "input_tokens" in request:
                prompts = ("steps", index, "requests", at, "prompts")
                tokens = ("steps", index, "requests", at, "input_tokens")
                yield "prompts of another length", prompts, _set(tokens, 511)
    for index, finding in enumerate(data["findings"]):
        for name in ("measure", "of"):
            if name in finding:
                yield "unknown measure", ("findings", index), _set(("findings", index, name), "no-such-measure")
        if "numerator_users" in finding:
            yield "unknown users", ("findings", index), _set(("findings", index, "numerator_users"), 31)


def _of_the_text(source: str) -> Iterator[tuple[str, Place, str | bytes]]:
    week = re.search(r"^week: .*$", source, flags=re.MULTILINE)
    assert week is not None
    for kind, line in {
        "repeated key": "week: 3\nweek: 3",
        "repeated key in quotes": 'week: 3\n"week": 3',
        "tab": "\tweek: 3",
        "tab in front of a value": "week:\n\t3",
        "NUL": "week: 3\0",
        "escape sequence": 'week: "\\e[31m3"',
        "forged line": 'week: "3\\nL06.yaml:1: id: forged"',
        "object": "week: !!python/object/apply:os.system [id]",
        "unknown tag": "week: !roman III",
        "tag that does not fit": "week: !!int three",
        "no such day": "week: 2026-02-31",
        "date": "week: 2026-02-03",
        "boolean": "week: yes",
        "null": "week: ~",
        "sexagesimal": "week: 190:20:30",
        "not a number": "week: .nan",
        "infinite": "week: -.inf",
        "fraction": "week: 3.5",
        "huge integer": "week: " + "9" * 5000,
        "huge hexadecimal": "week: 0x" + "f" * 9000,
        "alias": "week: [&w 3, *w]",
        "bomb": "week: [&a [x, x], &b [*a, *a], &c [*b, *b], &d [*c, *c], &e [*d, *d], &f [*e, *e], *f]",
        "endless loop": "week: &w [*w]",
        "deep lists": "week: " + "[" * 200_000,
        "deep mappings": "week: " + "{a: " * 200_000,
        "deep dashes": "week:\n  " + "- " * 200_000,
        "unclosed list": "week: [3",
        "surrogate": 'week: "\\ud800"',
        "list": "week: [3]",
        "text": "week: third",
    }.items():
        yield kind, ("week",), source.replace(week.group(), line, 1)
    for kind, (name, line) in {
        "boolean key": ("yes", "yes: 1"),
        "number as a key": ("3", "3: 1"),
        "null key": ("~", "~: 1"),
        "list as a key": ("?", "? [a]\n: 1"),
        "merge": ("<<", "<<: {sessions: 1}"),
        "key with a line break": ("we ek", '"we\\nek": 1'),
    }.items():
        yield kind, (name,), source.replace(week.group(), f"{week.group()}\n{line}", 1)
    whole: dict[str, str | bytes] = {
        "nothing": "",
        "only a comment": "# later\n",
        "a list": "- id: L06\n",
        "a word": "L06",
        "two documents": source + "\n---\nid: L07\n",
        "not UTF-8": source.encode().replace(b"week", b"w\xe9\xe9k", 1),
        "UTF-16": source.encode("utf-16"),
        "too large": source + "#" * 2_000_000,
        "another YAML": "%YAML 3.0\n---\n" + source,
        # It ends at the next quote, lines later; only there can a parser find that something is wrong.
        "unclosed quote": source.replace(week.group(), 'week: "3', 1),
    }
    for kind, text in whole.items():
        yield kind, (), text


def _at(data: Any, place: Place) -> Any:
    for part in place:
        data = data[part]
    return data


def _set(place: Place, value: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        _at(data, place[:-1])[place[-1]] = copy.deepcopy(value)

    return edit


def _other_sku(index: int, sku: str) -> Edit:
    """Another machine for a lab's nodes, and for the variants that run on them: what is wrong is the machine alone."""

    def edit(data: dict[str, Any]) -> None:
        former, data["nodes"][index]["sku"] = data["nodes"][index]["sku"], sku
        for variant in data["variants"]:
            if variant.get("sku") == former:
                variant["sku"] = sku

    return edit


def _remove(place: Place) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        del _at(data, place[:-1])[place[-1]]

    return edit


def _rename(place: Place, name: str) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        holder = _at(data, place)
        holder[f"{name}_"] = holder.pop(name)

    return edit


def _append(name: str, value: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        data[name].append(copy.deepcopy(value))

    return edit


def _append_component(value: Any) -> Edit:
    def edit(data: dict[str, Any]) -> None:
        data["stack"]["components"].append(copy.deepcopy(value))

    return edit
