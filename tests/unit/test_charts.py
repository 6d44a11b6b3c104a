"""A value that its chart would ignore or refuse is named with its path, before anything is deployed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.charts import (
    CHARTS_DIR,
    ChartFacts,
    UnknownChartError,
    check_values,
    load_chart,
    place_of,
    recorded,
    written,
)
from lab_pipelines.catalog.loader import SpecError, load_catalog, read_yaml
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.catalog.stack import Chart
from lab_pipelines.deployment import REPO_ROOT
from resources.chart_values import vllm_arguments

TYPES = {"any", "bool", "int", "number", "string", "list", "map"}
OF_A_TEST = ChartFacts(
    name="shop",
    version="1.0.0",
    repository="https://example.org",
    source="",
    keys={
        "replicas": "int",
        "ratio": "number",
        "enabled": "bool",
        "port": "int|string",
        "labels": "map",
        "extra": "any",
        "image": {"repository": "string", "pullPolicy": "string"},
        "models": [{"name": "string", "args": "list"}],
    },
)


def said(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.field, problem.message) for problem in check_values(OF_A_TEST, values)]


def charts_of_complete_labs() -> list[Chart]:
    labs = [lab for lab in load_catalog().labs() if isinstance(lab, LabSpec)]
    return [component.chart for lab in labs for component in lab.stack.components]


def leaves(keys: Any) -> list[str]:
    match keys:
        case dict():
            return [leaf for inner in keys.values() for leaf in leaves(inner)]
        case [inner]:
            return leaves(inner)
        case _:
            return [keys]


def test_values_that_the_chart_knows_have_no_problem() -> None:
    values = {
        "replicas": 2,
        "ratio": 1,
        "enabled": False,
        "port": "http",
        "labels": {"anything": {"at": ["all"]}},
        "extra": [1],
        "image": {"pullPolicy": "Always"},
        "models": [{"name": "a"}, {"args": []}],
    }
    assert said(values) == []
    assert said(dict.fromkeys(values)) == []  # null makes Helm forget the chart's default


@pytest.mark.parametrize(
    ("values", "field", "message"),
    [
        ({"replica": 1}, "replica", r"is not a value that shop 1\.0\.0 knows; did you mean replicas\?"),
        ({"zzz": 1}, "zzz", r"it knows: replicas, ratio, enabled, .*models$"),
        ({"image": {"pulPolicy": "x"}}, "image.pulPolicy", r"did you mean pullPolicy\?"),
        ({"models": [{}, {"nam": "x"}]}, "models[1].nam", r"did you mean name\?"),
        ({"replicas": "1"}, "replicas", r"expected int, but found '1'"),
        ({"replicas": True}, "replicas", r"expected int, but found True"),
        ({"replicas": 1.5}, "replicas", r"expected int, but found 1\.5"),
        ({"enabled": "false"}, "enabled", r"expected bool, but found 'false'"),
        ({"port": 1.5}, "port", r"expected int or string, but found 1\.5"),
        ({"labels": ["a"]}, "labels", r"expected mapping, but found \['a'\]"),
        (
            {"image": "nginx:1"},
            "image",
            r"expected a mapping with keys such as repository, pullPolicy, but found 'nginx",
        ),
        ({"models": {"name": "a"}}, "models", r"expected a list, but found \{'name': 'a'\}"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_named_with_its_path_and_the_remedy(
    values: dict[str, Any], field: str, message: str
) -> None:
    ((found, text),) = said(values)
    assert found == field
    assert re.search(message, text), text


def test_every_problem_is_told() -> None:
    assert [field for field, _ in said({"a": 1, "image": {"b": 1}, "models": ["c"]})] == ["a", "image.b", "models[0]"]


def test_a_place_is_written_as_helm_sets_it_and_read_back() -> None:
    path = "servingEngineSpec.modelSpec[0].vllmConfig.maxNumSeqs"
    assert place_of(path) == ("servingEngineSpec", "modelSpec", 0, "vllmConfig", "maxNumSeqs")
    assert written(place_of(path)) == path


# The recorded facts


@pytest.mark.parametrize("chart", recorded())
def test_recorded_facts_name_the_commit_they_were_read_at_and_known_types(chart: str) -> None:
    name, version = chart.split()
    facts = load_chart(name, version)
    assert (facts.name, facts.version) == (name, version)
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/tree/[0-9a-f]{40}/[\w./-]+", facts.source)
    assert facts.repository.startswith("https://")
    found = leaves(facts.keys)
    assert len(found) >= 50
    assert {part for leaf in found for part in leaf.split("|")} <= TYPES
    data, _ = read_yaml(CHARTS_DIR / f"{name}-{version}.yaml")
    assert data["read_from"]


def test_every_chart_of_a_complete_lab_is_recorded_where_the_lab_takes_it_from() -> None:
    charts = charts_of_complete_labs()
    assert len({chart.name for chart in charts}) >= 5
    for chart in charts:
        assert load_chart(chart.name, chart.version).repository == chart.repository


def test_the_chart_knows_each_setting_that_the_local_target_turns_into_an_argument() -> None:
    facts = load_chart("vllm-stack", "0.1.12")
    config = {
        "enableChunkedPrefill": True,
        "enablePrefixCaching": True,
        "maxModelLen": 4096,
        "dtype": "half",
        "tensorParallelSize": 1,
        "maxNumSeqs": 8,
        "gpuMemoryUtilization": 0.9,
        "maxLoras": 1,
        "extraArgs": ["--seed", "1"],
    }
    values = {"servingEngineSpec": {"modelSpec": [{"modelURL": "a/b", "vllmConfig": config}]}}
    # The model, two switches, six settings with their values, and the two extra arguments: each of them is used.
    assert len(vllm_arguments(values, source="values.yaml")) == 1 + 2 + 6 * 2 + 2
    assert check_values(facts, values) == []


def test_lokis_values_zero_what_its_templates_refuse_beside_a_single_binary() -> None:
    # Seen when the values were rendered: the defaults give these parts replicas, and validate.yaml stops the release.
    found = {chart.values for chart in charts_of_complete_labs() if chart.name == "loki"}
    assert found
    for path in found:
        values, _ = read_yaml(REPO_ROOT / path)
        assert values["deploymentMode"] == "Monolithic"
        assert [values[part]["replicas"] for part in ("read", "write", "backend")] == [0, 0, 0], path


@pytest.mark.parametrize(("name", "version"), [("vllm-stack", "9.9.9"), ("no-such-chart", "1.0.0"), ("../spec", "1")])
def test_a_chart_that_is_not_recorded_is_an_error_that_names_those_that_are(name: str, version: str) -> None:
    with pytest.raises(UnknownChartError, match=r"can't be checked; recorded: alloy 1\.11\.1, .*vllm-stack 0\.1\.12"):
        load_chart(name, version)


def test_a_facts_file_without_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop-1.0.0.yaml").write_text("name: shop\nversion: 1.0.0\nkeys: {}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"shop-1\.0\.0\.yaml:1: repository: is required.*\n.*source: is required"):
        load_chart("shop", "1.0.0", tmp_path)
