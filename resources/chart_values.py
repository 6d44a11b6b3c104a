"""From Helm values to the engine's command line, as the vllm-stack chart's own template does it.

So the local target runs what the same values would run in a cluster. Source: production-stack 0.1.12,
helm/templates/deployment-vllm-multi.yaml. Doesn't belong here: rendering charts or talking to Helm.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab_pipelines.catalog.fields import Overrides
from lab_pipelines.catalog.stack import Component
from lab_pipelines.deployment import REPO_ROOT

_FLAGS = {
    "maxModelLen": "--max-model-len",
    "dtype": "--dtype",
    "tensorParallelSize": "--tensor-parallel-size",
    "maxNumSeqs": "--max-num-seqs",
    "gpuMemoryUtilization": "--gpu-memory-utilization",
    "maxLoras": "--max-loras",
}
_SWITCHES = {"enableChunkedPrefill": "enable-chunked-prefill", "enablePrefixCaching": "enable-prefix-caching"}


class ValuesError(ValueError):
    """A values file can't be used. The message names the file, the field and what was expected."""


def load_values(path: Path, *overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A component's values with `overrides` set in turn (catalog/fields.py, `Overrides`). Raises `ValuesError`."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValuesError(f"{path}: can't be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValuesError(f"{path}: expected a mapping of Helm values")
    for override in overrides:
        for key, value in override.items():
            _set(values, key, value, source=str(path))
    return values


def component_arguments(component: Component, overrides: Sequence[Overrides]) -> list[str]:
    """vLLM's command line for a component of kind `vllm`, its values with the overrides. Raises `ValuesError`."""
    values = load_values(REPO_ROOT / component.chart.values, *overrides)
    return vllm_arguments(values, source=component.chart.values)


def _set(values: dict[str, Any], path: str, value: Any, *, source: str) -> None:
    """As `helm --set path=value` on top of a values file: a list is entered by index, a missing mapping is made."""
    parts = [int(index) if index else name for name, index in re.findall(r"([A-Za-z0-9_-]+)|\[([0-9]+)\]", path)]
    place: Any = values
    for part, following in itertools.pairwise(parts):
        if isinstance(part, str) and isinstance(place, dict) and isinstance(following, str):
            place = place.setdefault(part, {})
            continue
        try:
            place = place[part]
        except (LookupError, TypeError):
            raise ValuesError(f"{source}: the override {path} enters {part!r}, which the values don't have") from None
    try:
        place[parts[-1]] = value
    except (LookupError, TypeError):
        raise ValuesError(f"{source}: the override {path} can't be set: {parts[-1]!r} has no place there") from None


def vllm_arguments(values: Mapping[str, Any], *, source: str) -> list[str]:
    """`[model, flag, …]` of the only model in `servingEngineSpec.modelSpec`. Raises `ValuesError`."""
    where = "servingEngineSpec.modelSpec"
    models = (values.get("servingEngineSpec") or {}).get("modelSpec") or []
    if len(models) != 1:
        raise ValuesError(f"{source}: {where}: expected exactly one model, but found {len(models)}")
    model = models[0]
    if not isinstance(model, Mapping) or not model.get("modelURL"):
        raise ValuesError(f"{source}: {where}[0].modelURL: is required, e.g. microsoft/Phi-3-mini-4k-instruct")
    config: Mapping[str, Any] = model.get("vllmConfig") or {}
    known = {*_FLAGS, *_SWITCHES, "extraArgs"}
    if unknown := sorted(set(config) - known):
        raise ValuesError(
            f"{source}: {where}[0].vllmConfig.{unknown[0]}: is not understood here; known: {', '.join(sorted(known))}"
        )
    arguments = [str(model["modelURL"])]
    # The chart leaves chunked prefill to vLLM when unset, but turns prefix caching off unless it is asked for.
    if "enableChunkedPrefill" in config:
        arguments.append(_switch("enableChunkedPrefill", on=bool(config["enableChunkedPrefill"])))
    arguments.append(_switch("enablePrefixCaching", on=bool(config.get("enablePrefixCaching"))))
    for key, flag in _FLAGS.items():
        if key in config:
            arguments += [flag, str(config[key])]
    return arguments + [str(argument) for argument in config.get("extraArgs") or []]


def drafted_tokens(arguments: Sequence[str]) -> int:
    """How many tokens a speculating engine proposes in a step: so many may come with another in one event. Else 0.

    Of vLLM's command line, also with methods that the modelled engine doesn't know.
    """
    for option, value in itertools.pairwise(arguments):
        if option == "--speculative-config":
            return int(json.loads(value).get("num_speculative_tokens", 0))
    return 0


def _switch(key: str, *, on: bool) -> str:
    return f"--{_SWITCHES[key]}" if on else f"--no-{_SWITCHES[key]}"
