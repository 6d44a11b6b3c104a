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
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab_pipelines.catalog.spec import Identity, LabSpec

CATALOG_DIR = Path(__file__).parent
Model = TypeVar("Model", bound=BaseModel)

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: same result, slower
    from yaml import SafeLoader as _SafeLoader


class SpecError(ValueError):
    """A catalog file is wrong. Each line of the message reads `file:line: field: what was expected`."""


class LabNotWrittenError(LookupError):
    """The lab exists by name; its spec does not."""


@dataclass(frozen=True)
class Catalog:
    """The year's labs. `labs` holds all of them by id, in order; `spec()` reads a complete one on demand."""

    directory: Path
    labs: dict[str, Identity] = field(hash=False)

    def spec(self, lab: str) -> LabSpec:
        """The complete spec of `lab`.

        Raises `LookupError` for a lab that the year does not have, `LabNotWrittenError` for one whose spec is
        not written, `SpecError` for one that is wrong.
        """
        if lab not in self.labs:
            raise LookupError(f"there is no lab {lab!r}; the year has {min(self.labs)} to {max(self.labs)}")
        path = self.directory / f"{lab}.yaml"
        if not path.exists():
            identity = self.labs[lab]
            raise LabNotWrittenError(
                f"{lab} ({identity.title}) can't run: its spec is not written yet. Write {_shown(path)} and its Helm "
                f"values, or run one that is complete: {', '.join(self.complete())}"
            )
        spec = read_model(path, LabSpec)
        if spec.id != lab:
            raise SpecError(f"{_shown(path)}:1: id: expected {lab!r}, as the file is named, but found {spec.id!r}")
        return spec

    def complete(self) -> list[str]:
        """Ids of the labs that have a spec."""
        return [lab for lab in self.labs if (self.directory / f"{lab}.yaml").exists()]


class _Labs(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    labs: list[Identity] = Field(min_length=1)


@cache
def load_catalog(directory: Path = CATALOG_DIR) -> Catalog:
    """The catalog in `directory`. Raises `SpecError`."""
    path = directory / "labs.yaml"
    labs = read_model(path, _Labs).labs
    ids = [lab.id for lab in labs]
    if repeated := {i for i in ids if ids.count(i) > 1}:
        raise SpecError(f"{_shown(path)}: labs: {', '.join(sorted(repeated))} is given more than once")
    return Catalog(directory, {lab.id: lab for lab in labs})


def read_model(path: Path, model: type[Model]) -> Model:
    """Read one YAML file as `model`. Raises `SpecError` that names file, line, field and expectation."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{_shown(path)}: can't be read: {error}") from None
    try:
        node = yaml.compose(text, Loader=_SafeLoader)
        _refuse_aliases_and_repeated_keys(node, path, text)
        data = yaml.load(text, Loader=_SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise SpecError(f"{_shown(path)}:{line}: not valid YAML: {problem}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{_shown(path)}:1: expected a mapping with the fields {', '.join(model.model_fields)}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(path, node, e) for e in error.errors(include_url=False)]
        raise SpecError("\n".join(lines)) from None


def _explain(path: Path, root: yaml.Node | None, error: Any) -> str:
    location = list(error["loc"])
    line, shown = _line_of(root, location), ".".join(str(part) for part in location) or "(whole file)"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is required and missing"
    elif error["type"] == "extra_forbidden":
        message = "is not a field of this spec; remove it or correct its name"
    elif error["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, but found {_short(error['input'])}"
    return f"{_shown(path)}:{line}: {shown}: {message}"


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


def _refuse_aliases_and_repeated_keys(node: yaml.Node | None, path: Path, text: str) -> None:
    # Aliases allow a small file to expand to gigabytes; a repeated key silently drops the first value.
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise SpecError(f"{_shown(path)}:{line}: YAML aliases (*{event.anchor}) are not allowed; write it out")
    stack = [node] if node else []
    while stack:
        current = stack.pop()
        if isinstance(current, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in current.value:
                if str(key.value) in seen:
                    line = key.start_mark.line + 1
                    raise SpecError(f"{_shown(path)}:{line}: {key.value}: is given more than once; keep one")
                seen.add(str(key.value))
                stack.append(value)
        elif isinstance(current, yaml.SequenceNode):
            stack.extend(current.value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(CATALOG_DIR.parents[1]))
    except ValueError:
        return str(path)
