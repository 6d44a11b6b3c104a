"""Reads specs and tables of facts from YAML; turns every mistake into one line with file, line, field and remedy.

Belongs here: YAML, line numbers, error messages, the cache of what was read.
Doesn't belong here: the rules themselves (spec.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lab_pipelines.catalog.spec import LabSpec, Outline

CATALOG_DIR = Path(__file__).parent
Model = TypeVar("Model", bound=BaseModel)

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: same result, slower
    from yaml import SafeLoader as _SafeLoader


class SpecError(ValueError):
    """A catalog file is wrong. Each line of the message reads `file:line: field: what was expected`."""


class LabNotWrittenError(LookupError):
    """The lab is an outline. The message says what is missing."""


@dataclass(frozen=True)
class Catalog:
    """The year's labs, one file LNN.yaml each. A file is read when it is first asked for."""

    directory: Path
    ids: tuple[str, ...]
    """In the year's order. They come from the file names, so that knowing them costs no reading."""
    _read: dict[str, LabSpec | Outline] = field(default_factory=dict, repr=False, compare=False)

    def lab(self, lab: str) -> LabSpec | Outline:
        """The lab, complete or not. Raises `LookupError` for one that the year does not have, `SpecError`."""
        if lab not in self.ids:
            raise LookupError(f"there is no lab {lab!r}; the year has {self.ids[0]} to {self.ids[-1]}")
        if lab not in self._read:
            path = self.path(lab)
            data, node = read_yaml(path)
            # Which of the two is meant follows from the one field that only an outline has.
            found = validate(path, data, node, Outline if "missing" in data else LabSpec)
            if found.id != lab:
                raise SpecError(f"{shown(path)}:1: id: expected {lab!r}, as the file is named, but found {found.id!r}")
            self._read[lab] = found
        return self._read[lab]

    def spec(self, lab: str) -> LabSpec:
        """The complete spec of `lab`.

        Raises `LookupError` for a lab that the year does not have, `LabNotWrittenError` for one that is not
        complete, `SpecError` for one that is wrong.
        """
        found = self.lab(lab)
        if isinstance(found, Outline):
            raise LabNotWrittenError(
                f"{lab} ({found.title}) can't run: it is not complete. Missing in {shown(self.path(lab))}: "
                f"{'; '.join(found.missing)}. `labs list --status complete` names the labs that can run"
            )
        return found

    def labs(self) -> list[LabSpec | Outline]:
        """Every lab of the year, in order. Raises `SpecError`."""
        return [self.lab(lab) for lab in self.ids]

    def path(self, lab: str) -> Path:
        return self.directory / f"{lab}.yaml"


@cache
def load_catalog(directory: Path = CATALOG_DIR) -> Catalog:
    """The catalog in `directory`. Raises `SpecError`."""
    ids = tuple(sorted(path.stem for path in directory.glob("L[0-9][0-9]*.yaml")))
    if not ids:
        raise SpecError(f"{shown(directory)}: has no lab; expected files L01.yaml, L02.yaml, …")
    return Catalog(directory, ids)


def read_model(path: Path, model: type[Model]) -> Model:
    """Read one YAML file as `model`. Raises `SpecError` that names file, line, field and expectation."""
    data, node = read_yaml(path)
    return validate(path, data, node, model)


def read_yaml(path: Path) -> tuple[dict[str, Any], yaml.MappingNode]:
    """A file's mapping, and its nodes, which know the lines. Raises `SpecError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{shown(path)}: can't be read: {error}") from None
    loader = _SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise SpecError(f"{shown(path)}:1: expected a mapping of fields, such as `id: L06`")
        _refuse_aliases_and_repeated_keys(node, path)
        data = loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{shown(path)}:{line}: not valid YAML: {problem}") from None
    finally:
        loader.dispose()
    return data, node


def validate(path: Path, data: dict[str, Any], node: yaml.MappingNode, model: type[Model]) -> Model:
    """`data`, as `read_yaml` gave it, as `model`. Raises `SpecError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(path, node, e) for e in error.errors(include_url=False)]
        raise SpecError("\n".join(lines)) from None


def _explain(path: Path, root: yaml.Node | None, error: Any) -> str:
    location = list(error["loc"])
    line, where = _line_of(root, location), ".".join(str(part) for part in location) or "(whole file)"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is required and missing"
    elif error["type"] == "extra_forbidden":
        message = "is not a field of this spec; remove it or correct its name"
    elif error["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, but found {_short(error['input'])}"
    return f"{shown(path)}:{line}: {where}: {message}"


def _line_of(node: yaml.Node | None, location: list[Any]) -> int:
    """Line of the deepest part of `location` that the file has (a missing field: its parent's line)."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                return line
            key, node = found[0]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            item = node.value[part]
            node, line = item, item.start_mark.line + 1
        else:
            return line
    return line


def _refuse_aliases_and_repeated_keys(node: yaml.Node, path: Path) -> None:
    # An alias is its anchor's own node once more: a small file could expand to gigabytes. A repeated key silently
    # drops the first value.
    stack, met = [node], set[int]()
    while stack:
        current = stack.pop()
        line = current.start_mark.line + 1
        if id(current) in met:
            raise SpecError(
                f"{shown(path)}:{line}: what stands here is used again by a YAML alias (*name); write it out"
            )
        met.add(id(current))
        if isinstance(current, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in current.value:
                if str(key.value) in seen:
                    line = key.start_mark.line + 1
                    raise SpecError(f"{shown(path)}:{line}: {key.value}: is given more than once; keep one")
                seen.add(str(key.value))
                stack += [key, value]
        elif isinstance(current, yaml.SequenceNode):
            stack.extend(current.value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def shown(path: Path) -> str:
    """The path as messages name it: from the repository where it lies there."""
    try:
        return str(path.relative_to(CATALOG_DIR.parents[1]))
    except ValueError:
        return str(path)
