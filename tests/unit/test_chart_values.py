"""The same Helm values configure the chart in a cluster and the modelled server on a laptop."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab_pipelines.deployment import REPO_ROOT
from resources.chart_values import ValuesError, load_values, vllm_arguments

L06 = REPO_ROOT / "helm-values" / "lab06" / "values.yaml"


def test_l06_asks_vllm_for_what_the_chart_would_ask() -> None:
    # The order and spelling of production-stack 0.1.12's deployment template, dashes for underscores.
    assert vllm_arguments(load_values(L06), source="values.yaml") == [
        "microsoft/Phi-3-mini-4k-instruct",
        "--enable-chunked-prefill",
        "--no-enable-prefix-caching",
        *["--max-model-len", "4096"],
        *["--dtype", "half"],
        *["--max-num-seqs", "256"],
        *["--gpu-memory-utilization", "0.92"],
        *["--max-num-batched-tokens", "2048"],
    ]


def test_overrides_set_single_values_by_helms_paths_and_later_ones_win(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("a: {b: 1, c: [{x: 1, y: 2}]}\nd: 1\n", encoding="utf-8")
    variant, step = {"a.c[0].x": 5, "new.below": True, "d": 2}, {"d": 3}
    assert load_values(path, variant, step) == {
        "a": {"b": 1, "c": [{"x": 5, "y": 2}]},
        "d": 3,
        "new": {"below": True},
    }
    assert load_values(path) == {"a": {"b": 1, "c": [{"x": 1, "y": 2}]}, "d": 1}


@pytest.mark.parametrize("override", ["a.c[1].x", "d[0]", "d.x.y", "a.c[7]"])
def test_an_override_of_what_the_values_do_not_have_is_refused_by_its_path(tmp_path: Path, override: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("a: {b: 1, c: [{x: 1}]}\nd: 1\n", encoding="utf-8")
    with pytest.raises(ValuesError, match=f"the override {re.escape(override)}"):
        load_values(path, {override: 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "servingEngineSpec: {modelSpec: []}",
            r"values\.yaml: servingEngineSpec\.modelSpec: expected exactly one model",
        ),
        ("servingEngineSpec: {modelSpec: [{name: x}]}", r"modelSpec\[0\]\.modelURL: is required"),
        (
            "servingEngineSpec: {modelSpec: [{modelURL: x, vllmConfig: {gpuMemory: 1}}]}",
            r"vllmConfig\.gpuMemory: is not understood here; known: .*gpuMemoryUtilization",
        ),
        ("[1]", "expected a mapping of Helm values"),
        ("a: [", "can't be read as YAML"),
    ],
)
def test_values_that_cannot_be_used_are_refused_by_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValuesError, match=message):
        vllm_arguments(load_values(path), source="values.yaml")
