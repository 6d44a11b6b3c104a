"""Dashboards ask for series that exist, in PromQL that Prometheus accepts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipelines.deployment import REPO_ROOT
from resources.binaries import find

DASHBOARDS = sorted((REPO_ROOT / "dashboards" / "grafana").glob("*.json"))
VLLM_METRICS = REPO_ROOT / "tests" / "data" / "vllm-0.32-metrics.txt"
COLUMNS = 24
"""Of Grafana's grid."""

per_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def expressions(path: Path) -> list[str]:
    """Every panel's PromQL, with Grafana's variables filled in as Grafana does."""
    found = [target["expr"] for panel in dashboard(path)["panels"] for target in panel["targets"]]
    assert found
    return [e.replace("$__rate_interval", "1m").replace("$namespace", "lab-06") for e in found]


def series_of_vllm() -> set[str]:
    lines = VLLM_METRICS.read_text(encoding="utf-8").splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}


def test_there_is_a_dashboard_for_the_load_test() -> None:
    assert "l06-load-test-contract" in {path.stem for path in DASHBOARDS}


@per_dashboard
def test_every_series_exists_in_vllm_or_is_dcgm_s(path: Path) -> None:
    used = {name for e in expressions(path) for name in re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)\{", e)}
    assert used
    unknown = {name for name in used if not name.startswith("DCGM_FI_DEV_")} - series_of_vllm()
    assert not unknown


@per_dashboard
def test_prometheus_accepts_every_expression(path: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(expressions(path))]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([find("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


@per_dashboard
def test_every_expression_is_narrowed_to_one_namespace(path: Path) -> None:
    for e in expressions(path):
        assert e.count("{") == e.count('{namespace="lab-06"}'), e


@per_dashboard
def test_no_two_panels_overlap_and_every_one_has_a_unit_and_says_what_it_is(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    panels = dashboard(path)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not squares & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]
        taken |= squares


@per_dashboard
def test_a_missing_series_is_a_hole_in_the_line(path: Path) -> None:
    for panel in dashboard(path)["panels"]:
        assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False
