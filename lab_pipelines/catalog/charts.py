"""What upstream Helm charts know of their values: recorded facts, and the check of a lab's values against them.

Helm ignores a key that its chart doesn't know, so a typing error would deploy the default without a word.
Belongs here: reading `charts/<name>-<version>.yaml`, and comparing values with it.
Doesn't belong here: the charts themselves, rendering them (resources/helm.py), or reading values files (validation.py).

A facts file holds the chart's name, version, repository, the commit its keys were read at, and the tree of keys.
A leaf is a type (`bool`, `int`, `number`, `string`, `list`, `map`, `any`) or several joined by `|`; `map` is free-form,
or not recorded further down; a list that holds one tree is a list of mappings with those keys.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lab_pipelines.catalog.loader import CATALOG_DIR, Problem, SpecError, read_yaml, shown

CHARTS_DIR = CATALOG_DIR / "charts"
Place = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the top."""


class UnknownChartError(LookupError):
    """No facts of this chart are recorded. The message names what is."""


@dataclass(frozen=True)
class ChartFacts:
    name: str
    version: str
    repository: str
    source: str
    """The public tree, at a commit, that the keys were read from."""
    keys: dict[str, Any]


@dataclass(frozen=True)
class ValueProblem:
    """One value that the chart does not know or does not take."""

    place: Place
    message: str

    @property
    def field(self) -> str:
        return written(self.place)


def recorded(directory: Path = CHARTS_DIR) -> list[str]:
    """`name version` of every chart whose facts are recorded."""
    return [" ".join(path.stem.rsplit("-", 1)) for path in sorted(directory.glob("*.yaml"))]


@cache
def load_chart(name: str, version: str, directory: Path = CHARTS_DIR) -> ChartFacts:
    """The facts of a chart. Raises `UnknownChartError`, and `SpecError` for a file that can't be used."""
    path = directory / f"{name}-{version}.yaml"
    if path.parent != directory or not path.is_file():
        raise UnknownChartError(
            f"nothing is recorded of the chart {name} {version}, so its values can't be checked; "
            f"recorded: {', '.join(recorded(directory))}"
        )
    data, _ = read_yaml(path)
    if missing := {"name", "version", "repository", "source", "keys"} - data.keys():
        raise SpecError(*(Problem(shown(path), 1, key, "is required and missing") for key in sorted(missing)))
    return ChartFacts(**{key: data[key] for key in ("name", "version", "repository", "source", "keys")})


def check_values(chart: ChartFacts, values: dict[str, Any]) -> list[ValueProblem]:
    """Every key of `values` that the chart doesn't know, and every value of a type that it doesn't take."""
    return list(_compare(f"{chart.name} {chart.version}", chart.keys, values, ()))


def _compare(chart: str, known: Any, value: Any, place: Place) -> Iterator[ValueProblem]:
    if value is None:  # Helm takes null as: forget the default
        return
    if isinstance(known, dict):
        if not isinstance(value, dict):
            yield ValueProblem(place, f"expected a mapping with keys such as {_some(known)}, but found {_short(value)}")
            return
        for key, inner in value.items():
            if key in known:
                yield from _compare(chart, known[key], inner, (*place, key))
            else:
                yield ValueProblem((*place, key), _unknown(chart, key, known))
    elif isinstance(known, list):
        if not isinstance(value, list):
            yield ValueProblem(place, f"expected a list, but found {_short(value)}")
            return
        for index, item in enumerate(value):
            yield from _compare(chart, known[0], item, (*place, index))
    elif not any(_is(kind, value) for kind in known.split("|")):
        expected = known.replace("|", " or ").replace("map", "mapping")
        yield ValueProblem(place, f"expected {expected}, but found {_short(value)}")


_TYPES: dict[str, type | tuple[type, ...]] = {
    "any": object,
    "bool": bool,
    "int": int,
    "number": (int, float),
    "string": str,
    "list": list,
    "map": dict,
}


def _is(kind: str, value: Any) -> bool:
    if isinstance(value, bool) and kind in {"int", "number"}:  # Python's bool is an int; YAML's isn't
        return False
    return isinstance(value, _TYPES[kind])


def _unknown(chart: str, key: object, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
    remedy = f"did you mean {near[0]}?" if near else f"it knows: {_some(known)}"
    return f"is not a value that {chart} knows; {remedy}"


def _some(known: dict[str, Any]) -> str:
    names = list(known)
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def written(place: Place) -> str:
    """A place as `helm --set` writes it: `servingEngineSpec.modelSpec[0].tag`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def place_of(path: str) -> Place:
    """The reverse of `written`."""
    return tuple(int(index) if index else name for name, index in re.findall(r"([A-Za-z0-9_-]+)|\[([0-9]+)\]", path))
