"""Reads specs and tables of facts from YAML; turns every mistake into one line with file, line, field and remedy.

Belongs here: YAML, line numbers, error messages, the cache of what was read.
Doesn't belong here: the rules themselves (spec.py), or rules that need a second file (validation.py).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lab_pipelines.catalog.known_fields import meant
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.catalog.strict import in_words
from lab_pipelines.words import counted

CATALOG_DIR = Path(__file__).parent
LARGEST = 1_000_000
"""Bytes of a file that is read at all; the longest spec has a hundredth of it."""
DEEPEST = 50
"""Levels of nesting. libyaml recurses: at 100,000 it overflowed the stack and ended the process."""
WHOLE_FILE = "(whole file)"
Model = TypeVar("Model", bound=BaseModel)

try:
    from yaml import CSafeLoader as _SafeLoader
except ImportError:  # PyYAML built without libyaml: same result, slower
    from yaml import SafeLoader as _SafeLoader


@dataclass(frozen=True)
class Problem:
    """One mistake in one file. `str()` is one line, whatever the file held."""

    path: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return one_line(f"{self.path}:{self.line}: {self.field}: {self.message}")


class SpecError(ValueError):
    """A file of the catalog is wrong. Each line of the message is a problem: `file:line: field: what was expected`."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


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
            self._read[lab] = read_lab(self.path(lab))[0]
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
        raise SpecError(Problem(shown(directory), 1, WHOLE_FILE, "has no lab; expected files L01.yaml, L02.yaml, …"))
    return Catalog(directory, ids)


def read_model(path: Path, model: type[Model]) -> Model:
    """Read one YAML file as `model`. Raises `SpecError` that names file, line, field and expectation."""
    data, node = read_yaml(path)
    return validate(path, data, node, model)


def read_lab(path: Path) -> tuple[LabSpec | Outline, yaml.MappingNode]:
    """One lab's file, and its nodes, which know the lines. Raises `SpecError`."""
    data, node = read_yaml(path)
    # Which of the two is meant follows from the one field that only an outline has.
    found = validate(path, data, node, Outline if "missing" in data else LabSpec)
    if found.id != path.stem:
        message = f"expected {path.stem!r}, as the file is named, but found {found.id!r}"
        raise SpecError(Problem(shown(path), line_of(node, ["id"]), "id", message))
    return found, node


def read_yaml(path: Path) -> tuple[dict[str, Any], yaml.MappingNode]:
    """A file's one mapping, and its nodes. Raises `SpecError`."""
    documents = read_documents(path)
    if len(documents) > 1:
        line = documents[1][1].start_mark.line + 1
        raise SpecError(Problem(shown(path), line, WHOLE_FILE, "expected one document, but a second begins here"))
    if not documents:
        raise SpecError(Problem(shown(path), 1, WHOLE_FILE, "expected a mapping of fields, such as `id: L06`"))
    return documents[0]


def read_documents(path: Path) -> list[tuple[dict[str, Any], yaml.MappingNode]]:
    """Every document of a file, each of which must be a mapping; empty ones are left out. Raises `SpecError`."""
    text = _read_text(path)
    try:
        _refuse_depth_and_aliases(path, text)
        nodes = [node for node in _composed(text) if node.tag != "tag:yaml.org,2002:null"]
    except yaml.YAMLError as error:
        raise SpecError(_syntax_problem(path, text, error)) from None
    documents: list[tuple[dict[str, Any], yaml.MappingNode]] = []
    for node in nodes:
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1
            raise SpecError(Problem(shown(path), line, WHOLE_FILE, "expected a mapping of fields, such as `id: L06`"))
        if problems := list(_bad_keys(path, node)):
            raise SpecError(*problems)
        documents.append((_constructed(path, text, node), node))
    return documents


def _syntax_problem(path: Path, text: str, error: yaml.YAMLError) -> Problem:
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context", None) or ""
    # A bracket or quote that nobody closes is noticed later; what is to be changed stands where it was opened.
    if opened := getattr(error, "context_mark", None) if "flow" in context or "quoted" in context else None:
        return _at(path, text, opened.line + 1, f"not valid YAML: {context} that begins here, {problem}")
    line = mark.line + 1 if mark else 1 + text[: getattr(error, "position", 0)].count("\n")
    return _at(path, text, line, f"not valid YAML: {problem}")


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise SpecError(Problem(shown(path), 1, WHOLE_FILE, "is not a file"))
        if (size := path.stat().st_size) > LARGEST:
            message = f"has {size:,} bytes, and at most {LARGEST:,} are read"
            raise SpecError(Problem(shown(path), 1, WHOLE_FILE, message))
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SpecError(Problem(shown(path), line, WHOLE_FILE, f"can't be read as UTF-8: {error.reason}")) from None
    except OSError as error:
        raise SpecError(Problem(shown(path), 1, WHOLE_FILE, f"can't be read: {error.strerror}")) from None


def _refuse_depth_and_aliases(path: Path, text: str) -> None:
    # Before anything is built: an alias is its anchor's node once more, so that a small file can expand to gigabytes.
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise SpecError(_at(path, text, line, f"is nested more than {DEEPEST} levels deep"))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise SpecError(_at(path, text, line, f"uses the YAML alias *{event.anchor}; write out what it stands for"))


def _composed(text: str) -> list[yaml.Node]:
    loader = _SafeLoader(text)
    try:
        nodes: list[yaml.Node] = []
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # check_node said so
            nodes.append(node)
        return nodes
    finally:
        loader.dispose()


def _bad_keys(path: Path, root: yaml.Node) -> Iterator[Problem]:
    """Keys that YAML would drop, merge or read as something else than text."""
    stack: list[tuple[yaml.Node, list[Any]]] = [(root, [])]
    while stack:
        node, location = stack.pop()
        if isinstance(node, yaml.SequenceNode):
            stack += [(item, [*location, index]) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, value in node.value:
            place = [*location, key.value if isinstance(key, yaml.ScalarNode) else "?"]
            if key.tag == "tag:yaml.org,2002:merge":
                message = "merges other keys in (<<); write them out"
            elif not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                message = "is a key that YAML does not read as text; put it in quotes"
            elif key.value in seen:
                message = "is given more than once; keep one"
            else:
                seen.add(key.value)
                stack.append((value, place))
                continue
            yield Problem(shown(path), key.start_mark.line + 1, written(place), message)


def _constructed(path: Path, text: str, root: yaml.MappingNode) -> dict[str, Any]:
    loader = _SafeLoader("")
    try:
        return loader.construct_document(root)
    except (yaml.YAMLError, ValueError, OverflowError):
        # A node that its tag can't hold, such as the 31st of February: ask each for the one that it was.
        for node in _leaves_first(root):
            try:
                loader.construct_document(node)
            except (yaml.YAMLError, ValueError, OverflowError) as error:
                line = node.start_mark.line + 1
                problem = getattr(error, "problem", None) or str(error)
                what = _short(node.value) if isinstance(node, yaml.ScalarNode) else "what stands here"
                message = f"{what} can't be read as {node.tag.removeprefix('tag:yaml.org,2002:')}: {problem}"
                raise SpecError(_at(path, text, line, message)) from None
        raise
    finally:
        loader.dispose()


def _leaves_first(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _leaves_first(key)
            yield from _leaves_first(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _leaves_first(item)
    yield node


def _at(path: Path, text: str, line: int, message: str) -> Problem:
    """A problem of which only the line is known: its field is the last top-level key that begins at or above it."""
    above = "\n".join(text.splitlines()[:line])
    keys = re.findall(r"^\t?([A-Za-z_][A-Za-z0-9_-]*)\s*:", above, flags=re.MULTILINE)
    return Problem(shown(path), line, keys[-1] if keys else WHOLE_FILE, message)


def validate(path: Path, data: dict[str, Any], node: yaml.MappingNode, model: type[Model]) -> Model:
    """`data`, as `read_yaml` gave it, as `model`. Raises `SpecError`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = [_explain(path, node, model, e) for e in error.errors(include_url=False)]
        raise SpecError(*problems) from None


def _explain(path: Path, root: yaml.Node, model: type[BaseModel], error: Any) -> Problem:
    location = _without_tags(root, list(error["loc"]))
    message = error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "missing":
            message = "is required and missing"
        case "extra_forbidden":
            near = meant(model, error["loc"])
            remedy = f"did you mean {near}?" if near else "remove it or correct its name"
            message = f"is not a field of this spec; {remedy}"
        case "value_error":
            location, message = _named_field(root, location, message)
        case "union_tag_not_found":
            location, message = [*location, "kind"], "is required and missing"
        case "union_tag_invalid":
            context = error["ctx"]
            location = [*location, "kind"]
            message = f"expected one of {context['expected_tags']}, but found {_short(context['tag'])}"
        case "too_short":
            least = counted(error["ctx"]["min_length"], "item")
            message = f"expected at least {least}, but found {_short(error['input'])}"
        case "string_pattern_mismatch":
            message = f"expected {in_words(error['ctx']['pattern'])}, but found {_short(error['input'])}"
        case _:
            message = f"{message[0].lower()}{message[1:]}, but found {_short(error['input'])}"
    return Problem(shown(path), line_of(root, location), written(location), message)


def _without_tags(root: yaml.Node, location: list[Any]) -> list[Any]:
    """`location` without what pydantic adds to it: the kind of which a step is, and `[key]`."""
    node: yaml.Node | None = root
    kept: list[Any] = []
    for part in location:
        kind = _child(node, "kind")
        if part == "[key]" or (isinstance(kind, yaml.ScalarNode) and kind.value == part and not _child(node, part)):
            continue
        kept.append(part)
        node = _child(node, part)
    return kept


def _named_field(root: yaml.Node, location: list[Any], message: str) -> tuple[list[Any], str]:
    """Follows a rule's own message into the file: `steps: ramp names …` is about the step of that name."""
    named = re.match(r"([a-z_]+): (.*)", message, flags=re.DOTALL)
    field_node = _child(_find(root, location), named.group(1)) if named else None
    if named is None or field_node is None:
        return location, message
    location, message = [*location, named.group(1)], named.group(2)
    if isinstance(field_node, yaml.SequenceNode):
        first = message.split()[0].rstrip(",:")
        # The last of them: where a name is given twice, it is the second that is to be changed.
        for index, item in reversed(list(enumerate(field_node.value))):
            names = [_child(item, key) for key in ("id", "name")]
            if any(isinstance(node, yaml.ScalarNode) and node.value == first for node in names):
                return [*location, index], message
    return location, message


def _find(node: yaml.Node | None, location: list[Any]) -> yaml.Node | None:
    for part in location:
        node = _child(node, part)
    return node


def _child(node: yaml.Node | None, part: Any) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]
    return None


def line_of(node: yaml.Node, location: list[Any]) -> int:
    """Line of the deepest part of `location` that the file has (a missing field: its parent's line)."""
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return line
            key, node = found
            line = key.start_mark.line + 1
        else:
            child = _child(node, part)
            if child is None:
                return line
            node, line = child, child.start_mark.line + 1
    return line


def written(location: list[Any]) -> str:
    """A place in a file as problems name it: `measures.0.promql`."""
    return one_line(".".join(str(part) for part in location)) or WHOLE_FILE


def _short(value: Any) -> str:
    if isinstance(value, dict | list | set | tuple):
        return reprlib.repr(value)  # bounded in depth, too
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(text: str) -> str:
    """`text` with every line break and control character made visible or a blank, so that it can't forge a line."""
    kept = "".join(c if c.isprintable() else " " if c.isspace() else f"\\x{ord(c):02x}" for c in text)
    return kept if len(kept) <= 600 else f"{kept[:597]}..."


def shown(path: Path) -> str:
    """The path as messages name it: from the repository where it lies there."""
    try:
        return str(path.relative_to(CATALOG_DIR.parents[1]))
    except ValueError:
        return str(path)
