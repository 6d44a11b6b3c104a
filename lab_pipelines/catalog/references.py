"""The files that specs refer to: Helm values, manifests, rules, prompt fixtures and measures in SQL.

Belongs here: whether such a file is there, inside its folder, and what the spec says of it.
Doesn't belong here: rules between specs (validation.py), what a chart knows (charts.py), or rendering and applying.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from streaming_load.traces import TraceError

from lab_pipelines.catalog.charts import UnknownChartError, check_values, load_chart, place_of, recorded
from lab_pipelines.catalog.loader import WHOLE_FILE, Problem, SpecError, line_of, read_documents, shown, written
from lab_pipelines.catalog.promql import refusal
from lab_pipelines.catalog.spec import LabSpec, Outline
from lab_pipelines.catalog.stack import Chart
from lab_pipelines.catalog.steps import (
    AnyStep,
    ApplyStep,
    CompletionRequest,
    FireAlertStep,
    LoadStep,
    RateProfile,
    RestartStep,
    TracedRequest,
    TraceReplay,
)
from lab_pipelines.traces import replayed_by

Location = list[str | int]
Documents = list[tuple[dict[str, Any], yaml.MappingNode]]

SQL_PARAMETERS = {"session_id", "run_id", "target", "step", "stage", "start", "end"}
"""What assets/measures.py gives a measure in SQL."""
LARGEST_FIXTURE = 20_000_000
"""Bytes of a prompt fixture that is read at all."""


@dataclass(frozen=True)
class LabFile:
    """One lab's spec with its file, so that a problem can name the line."""

    spec: LabSpec | Outline
    path: Path
    node: yaml.MappingNode

    def problem(self, location: Location, message: str) -> Problem:
        return Problem(shown(self.path), line_of(self.node, location), written(location), message)


@dataclass
class Files:
    """What specs refer to, each file read once, however many labs name it."""

    root: Path
    values: dict[Path, Chart] = field(default_factory=dict)
    """Values files that are checked, with their chart."""
    documents: dict[Path, Documents] = field(default_factory=dict)
    prompt_lengths: dict[Path, set[int] | str] = field(default_factory=dict)
    """By fixture: how long its prompts are, or what is wrong with it."""

    def find(self, relative: str) -> Path | str:
        """The file, or what is wrong with the reference to it."""
        path, folder = self.root / relative, relative.partition("/")[0]
        try:
            if not path.is_file():
                return f"there is no file {relative}"
            if not path.resolve().is_relative_to(self.root.resolve() / folder):
                return f"{relative} is a link that leads out of {folder}/"
        except OSError as error:
            return f"{relative} can't be read: {error.strerror}"
        return path


def referred_files(lab: LabFile, files: Files) -> Iterator[Problem]:
    """Problems of everything that a complete lab's spec names; an outline names nothing."""
    if isinstance(lab.spec, LabSpec):
        yield from _components(lab, lab.spec, files)
        yield from _steps(lab, lab.spec, files)
        yield from _measures(lab, lab.spec, files)


def _components(lab: LabFile, spec: LabSpec, files: Files) -> Iterator[Problem]:
    for index, component in enumerate(spec.stack.components):
        here: Location = ["stack", "components", index, "chart"]
        chart = component.chart
        try:
            facts = load_chart(chart.name, chart.version)
            if chart.repository.rstrip("/") != facts.repository:
                message = f"the chart {chart.name} {chart.version} was read at {facts.repository}"
                yield lab.problem([*here, "repository"], message)
        except UnknownChartError as error:
            known = any(entry.split()[0] == chart.name for entry in recorded())
            yield lab.problem([*here, "version" if known else "name"], str(error))
        path = files.find(chart.values)
        if isinstance(path, str):
            yield lab.problem([*here, "values"], path)
            continue
        known = files.values.setdefault(path, chart)
        if (known.name, known.version) != (chart.name, chart.version):
            message = f"{chart.values} is also used with {known.name} {known.version}; one file has one chart"
            yield lab.problem([*here, "values"], message)
            continue
        for variant_index, variant in enumerate(spec.variants):
            place: Location = ["variants", variant_index, "values", component.name]
            yield from _overrides(lab, place, variant.values.get(component.name, {}), path, chart, files)
    for place, step in _steps_with_places(spec):
        if isinstance(step, RestartStep):
            chart = spec.stack.component(step.component).chart
            path = files.find(chart.values)
            if isinstance(path, Path):
                yield from _overrides(lab, [*place, "values"], step.values, path, chart, files)


def _overrides(
    lab: LabFile, place: Location, overrides: dict[str, Any], path: Path, chart: Chart, files: Files
) -> Iterator[Problem]:
    try:
        facts = load_chart(chart.name, chart.version)
        documents = _documents(path, files)
    except (UnknownChartError, SpecError):  # reported where the chart is named, and with the values file
        return
    for key, value in overrides.items():
        parts = place_of(key)
        if documents and (missing := _list_that_is_missing(documents[0][0], parts)):
            yield lab.problem([*place, key], f"{chart.values} has no {missing} that this could change")
            continue
        nested: Any = value
        for part in reversed(parts):
            nested = [nested] if isinstance(part, int) else {part: nested}
        for problem in check_values(facts, nested):
            field = f"{problem.field}: " if len(problem.place) != len(parts) else ""
            yield lab.problem([*place, key], f"{field}{problem.message}")


def _list_that_is_missing(values: Any, parts: tuple[str | int, ...]) -> str | None:
    """`helm --set` makes missing mappings, but an item of a list must be there."""
    for depth, part in enumerate(parts):
        if isinstance(part, int):
            if not isinstance(values, list) or part >= len(values):
                return ".".join(map(str, parts[: depth + 1]))
            values = values[part]
        else:
            values = values.get(part) if isinstance(values, dict) else None
    return None


def _steps_with_places(spec: LabSpec) -> Iterator[tuple[Location, AnyStep]]:
    for index, step in enumerate(spec.steps):
        yield ["steps", index], step
        if isinstance(step, FireAlertStep):
            yield ["steps", index, "cause"], step.cause


def _steps(lab: LabFile, spec: LabSpec, files: Files) -> Iterator[Problem]:
    for place, step in _steps_with_places(spec):
        if isinstance(step, ApplyStep):
            path = files.find(step.manifests)
            if isinstance(path, str):
                yield lab.problem([*place, "manifests"], path)
            elif not _readable_documents(path, files):
                yield lab.problem([*place, "manifests"], f"{step.manifests} holds no manifest")
        if isinstance(step, LoadStep):
            for index, request in enumerate(step.requests):
                if isinstance(request, CompletionRequest):
                    yield from _prompts(lab, [*place, "requests", index, "prompts"], request, files)
            if problem := _profile(step, spec, files):
                yield lab.problem([*place, "profile", *problem[0]], problem[1])


def _profile(step: LoadStep, spec: LabSpec, files: Files) -> tuple[Location, str] | None:
    """The field of a step's profile that is wrong, and why; None where all is well."""
    match step.profile:
        case RateProfile() as profile:
            field, length_s = "points", profile.walked[-1][0]
        case TraceReplay() as profile:
            path = files.find(profile.file)
            if isinstance(path, str):
                return ["file"], path
            [request] = step.requests
            assert isinstance(request, TracedRequest)
            try:
                field, length_s = "speed", replayed_by(profile, request, root=files.root).length_s / profile.speed
            except TraceError as error:
                return ["file"], str(error).removeprefix(f"{files.root}/")
        case _:
            return None
    cut = [f"{name} ({pace.max_hold_s:g} s)" for name, pace in spec.paces.items() if pace.max_hold_s < length_s]
    if not cut:
        return None
    return [field], f"the load takes {length_s:g} s, longer than max_hold_s of the paces {', '.join(cut)}"


def _prompts(lab: LabFile, place: Location, request: CompletionRequest, files: Files) -> Iterator[Problem]:
    path = files.find(request.prompts)
    if isinstance(path, str):
        yield lab.problem(place, path)
        return
    if path not in files.prompt_lengths:
        files.prompt_lengths[path] = _prompt_lengths(path)
    lengths = files.prompt_lengths[path]
    if isinstance(lengths, str):
        yield lab.problem(place, f"{request.prompts} {lengths}")
    elif lengths != {request.input_tokens}:
        found = ", ".join(map(str, sorted(lengths)))
        message = f"{request.prompts} has prompts of {found} tokens, but input_tokens is {request.input_tokens}"
        yield lab.problem(place, message)


def _prompt_lengths(path: Path) -> set[int] | str:
    wrong = 'is not a JSON file of the form {"prompts": [[token ids], …]}'
    if path.stat().st_size > LARGEST_FIXTURE:
        return f"has more than {LARGEST_FIXTURE:,} bytes"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return wrong
    prompts = data.get("prompts") if isinstance(data, dict) else None
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, list) for prompt in prompts):
        return wrong
    return {len(prompt) for prompt in prompts}


def _measures(lab: LabFile, spec: LabSpec, files: Files) -> Iterator[Problem]:
    for index, measure in enumerate(spec.measures):
        if measure.sql is None:
            continue
        path = files.find(measure.sql)
        message = path if isinstance(path, str) else _wrong_sql(path, measure.sql)
        if message:
            yield lab.problem(["measures", index, "sql"], message)


def _wrong_sql(path: Path, name: str) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return f"{name} can't be read as UTF-8"
    if not text.startswith("-- "):
        return f"{name} must begin with the question that it answers, as a comment: -- How long …?"
    code = re.sub(r"--[^\n]*|'[^']*'", "", text)
    if not code.strip():
        return f"{name} has no statement"
    if unknown := sorted(set(re.findall(r"\$([A-Za-z_][A-Za-z0-9_]*)", code)) - SQL_PARAMETERS):
        known = ", ".join(f"${parameter}" for parameter in sorted(SQL_PARAMETERS))
        return f"{name} has the unknown parameter ${unknown[0]}; known: {known}"
    return None


_NO_VALUES = frozenset({"kind", "groups", "rule_files"})
"""Keys of manifests and rule files, which lie beside values files."""


def values_and_manifests(files: Files, *, every_lab_names_its_files: bool) -> Iterator[Problem]:
    """Problems of every YAML file of a lab below helm-values/. Call it after `referred_files` of every lab.

    Charts of ours are templates, which only Helm can read.

    With `every_lab_names_its_files`, a values file that no lab named is one, too.
    """
    root = files.root / "helm-values"
    for path in sorted(path for path in root.rglob("*.y*ml") if not path.is_relative_to(root / "charts")):
        chart = files.values.get(path)
        try:
            documents = _documents(path, files)
        except SpecError as error:
            yield from error.problems
            continue
        for data, node in documents:
            if chart is None or chart.name != "loki":  # whose rules are LogQL
                yield from _rules(path, node, node, [])
            if "kind" in data or "apiVersion" in data:
                yield from _manifest(path, data, node)
        if chart is not None:
            yield from _values(path, chart, documents)
        elif every_lab_names_its_files and any(
            not data.keys() & {"kind", "groups", "rule_files"} for data, _ in documents
        ):
            message = "is a values file that no lab names, so nothing is deployed with it; name it or remove it"
            yield Problem(shown(path), 1, WHOLE_FILE, message)


def _documents(path: Path, files: Files) -> Documents:
    """The file's documents, read once. Raises `SpecError`, each time for a file that can't be read."""
    if path not in files.documents:
        files.documents[path] = read_documents(path)
    return files.documents[path]


def _readable_documents(path: Path, files: Files) -> bool:
    try:
        return bool(_documents(path, files))
    except SpecError:  # reported with the file itself
        return True


def _values(path: Path, chart: Chart, documents: Documents) -> Iterator[Problem]:
    try:
        facts = load_chart(chart.name, chart.version)
    except UnknownChartError:  # reported where the chart is named
        return
    for data, node in documents[:1]:
        for problem in check_values(facts, data):
            yield Problem(shown(path), line_of(node, list(problem.place)), problem.field, problem.message)
    for _, node in documents[1:]:
        line = node.start_mark.line + 1
        yield Problem(shown(path), line, WHOLE_FILE, "expected one document of values, but a second begins here")


def _manifest(path: Path, data: dict[str, Any], node: yaml.MappingNode) -> Iterator[Problem]:
    metadata = data.get("metadata")
    named = isinstance(metadata, dict) and (metadata.get("name") or metadata.get("generateName"))
    for name, missing in {
        "apiVersion": not isinstance(data.get("apiVersion"), str),
        "kind": not isinstance(data.get("kind"), str),
        "metadata.name": not named,
    }.items():
        if missing:
            message = "is required in a manifest and must be text"
            yield Problem(shown(path), line_of(node, list(name.split("."))), name, message)


def _rules(path: Path, root: yaml.MappingNode, node: yaml.Node, location: Location) -> Iterator[Problem]:
    """Problems of each expression of a Prometheus rule, wherever the file has it."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _rules(path, root, item, [*location, index])
    elif isinstance(node, yaml.MappingNode):
        children = {key.value: value for key, value in node.value}
        expression = children.get("expr")
        if isinstance(expression, yaml.ScalarNode) and children.keys() & {"alert", "record"}:
            here: Location = [*location, "expr"]
            if problem := refusal(expression.value):
                yield Problem(shown(path), line_of(root, here), written(here), problem)
        for key, value in children.items():
            yield from _rules(path, root, value, [*location, key])
