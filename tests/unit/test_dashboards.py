"""Dashboards are what their code says, ask for series that exist, and in a language that Prometheus and Loki accept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.grafana import build, configmaps, gpu_serving
from dashboards.grafana.gpu import TWELVE, gpu_section
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.deployment import REPO_ROOT
from resources.binaries import find
from tests.support.grafana import filled
from tests.support.logql import refusal

OF_LABS = sorted(build.FOLDER.glob("l[0-9]*.json"))
SERVING = build.FOLDER / f"{gpu_serving.UID}.json"
DASHBOARDS = [*OF_LABS, SERVING]
"""Those that look at what runs; the one over the warehouse has its own tests (test_cost_dashboard.py)."""
DATA = REPO_ROOT / "tests" / "data"
COLUMNS = 24
"""Of Grafana's grid."""
UNITS = {
    *("percent", "percentunit", "mbytes", "watt", "celsius", "hertz", "s"),
    *("short", "reqps", "none", "bytes", "Bps", "iops", "joule", "currencyUSD"),
}
"""Grafana's ids of the units in use (packages/grafana-data/src/valueFormats/categories.ts)."""

WHOLE_CLUSTER = {
    ("l02-gpu-metrics", "GPUs of the cluster"): "the view from the nodes counts every GPU",
    ("l02-gpu-metrics", "GPUs held by a pod"): "a pod of any namespace may hold one",
    ("l03-alerts", "Notifications sent"): "Alertmanager's series name no namespace of an alert",
    ("l03-alerts", "Notifications that failed"): "Alertmanager's series name no namespace of an alert",
    ("l07-scheduler-and-quota", "GPUs of the cluster"): "nodes have no namespace",
    ("l07-scheduler-and-quota", "GPUs asked for in the cluster"): "all namespaces share the nodes",
    ("l08-placement", "Strangers on GPU nodes"): "a stranger may come from any namespace",
    ("l08-placement", "GPU nodes"): "nodes have no namespace",
    ("l08-placement", "Taints"): "nodes have no namespace",
    ("l09-model-weights", "Disk throughput"): "disks are the nodes'",
    ("l09-model-weights", "Disk IOPS"): "disks are the nodes'",
    ("l09-model-weights", "Received by the nodes"): "the nodes mount the share",
}
"""Panels that look beyond the dashboard's namespace, and why."""

ALERT_PANELS = {
    "GpuMemoryHigh": "GPU memory, share in use",
    "PodRestarted": "Restarts",
    "RequestErrorRateHigh": "Errors",
    "RequestLatencyHigh": "Latency, p95",
    "QueueDepthHigh": "Requests running and waiting",
    "ErrorBudgetBurnFast": "Fast burn",
    "ErrorBudgetBurnSlow": "Slow burn",
}
"""The panel of L03's dashboard that shows each alert's condition."""

per_dashboard = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)


def dashboard(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def panels(path: Path) -> list[dict[str, Any]]:
    """Every panel that shows something: all but the rows' headings."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def expressions(path: Path, kind: str) -> list[tuple[str, str]]:
    """Title and question of every target of the panels, and of the annotations, that asks a `kind` of data source."""
    found = [(p["title"], t) for p in panels(path) for t in p["targets"]]
    found += [(a["name"], a) for a in dashboard(path)["annotations"]["list"]]
    return [(title, filled(t["expr"], "lab-06")) for title, t in found if t["datasource"]["type"] == kind]


def known_series() -> set[str]:
    files = ("vllm-0.32-metrics.txt", "vllm-0.32-series-of-features.txt")
    lines = [line for name in files for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    of_vllm = {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}
    exporters = yaml.safe_load((DATA / "exporter-series.yaml").read_text(encoding="utf-8"))
    return of_vllm.union(*(exporter["series"] for exporter in exporters.values()))


def test_the_committed_json_is_what_the_code_builds() -> None:
    made = build.documents()
    assert made == build.documents()
    committed = {path.name: path.read_text(encoding="utf-8") for path in build.FOLDER.glob("*.json")}
    assert committed.keys() == made.keys(), "run `make dashboards` and commit what changed"
    stale = [name for name, text in made.items() if committed[name] != text]
    assert not stale, "run `make dashboards` and commit what changed"


def test_every_lab_of_the_first_phase_has_a_dashboard_titled_as_the_catalog_titles_it() -> None:
    labs = {lab.id: lab for lab in load_catalog().labs() if lab.phase == 1 and "consolidation" not in lab.kinds}
    found = {configmaps.lab_of(path): dashboard(path) for path in OF_LABS}
    assert [lab for lab in labs if lab <= "L10"] == sorted(found)
    for lab, shown in found.items():
        assert shown["title"] == f"{lab} · {labs[lab].title}"
        assert shown["tags"] == ["lab", lab]
        namespace = next(v for v in shown["templating"]["list"] if v["name"] == "namespace")
        assert namespace["current"]["value"] == labs[lab].namespace


@per_dashboard
def test_nothing_in_the_json_belongs_to_one_grafana_alone(path: Path) -> None:
    shown = dashboard(path)
    assert shown["uid"] == path.stem
    assert len(shown["uid"]) <= 40  # Grafana's limit
    assert "id" not in shown
    assert shown["schemaVersion"] == 41
    variables = {f"${{{v['name']}}}" for v in shown["templating"]["list"] if v["type"] == "datasource"}
    used = {target["datasource"]["uid"] for panel in panels(path) for target in panel["targets"]}
    used |= {panel["datasource"]["uid"] for panel in panels(path)}
    used |= {annotation["datasource"]["uid"] for annotation in shown["annotations"]["list"]}
    assert used <= variables
    assert variables <= used | {"${datasource}"}


@per_dashboard
def test_every_series_exists_where_it_is_said_to_come_from(path: Path) -> None:
    used = {name for _, e in expressions(path, "prometheus") for name in re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)\{", e)}
    assert used
    assert not used - known_series()


@per_dashboard
def test_prometheus_accepts_every_expression(path: Path, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": e} for n, (_, e) in enumerate(expressions(path, "prometheus"))]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([find("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_every_log_query_is_logql() -> None:
    asked = [(path.stem, *question) for path in DASHBOARDS for question in expressions(path, "loki")]
    assert {name for name, _, _ in asked} >= {"l01-instrument-panel", "l04-llm-logs"}
    assert [(name, title, why) for name, title, e in asked if (why := refusal(e))] == []


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ('{namespace="lab-04"} | json | unwrap', "expected name, found the end"),
        ('sum by (level) rate({namespace="lab-04"}[5m])', r"expected \(, found 'rate'"),
        ('quantile_over_time(0.5, {namespace="lab-04"} | json [5m])', "needs a field to unwrap"),
        ('quantile_over_time(95, {namespace="lab-04"} | json | unwrap ttft_s [5m])', "between 0 and 1"),
        ("{namespace=lab-04}", "expected string|no LogQL"),
        ('{namespace="lab-04"} | jsn', "expected mark, found the end"),
        ('rate({namespace="lab-04"})', r"expected \[, found"),
        ('{namespace="lab-04"} } ', "more after the end"),
    ],
)
def test_what_is_not_logql_is_refused(query: str, why: str) -> None:
    assert re.search(why, refusal(query) or "accepted")


def test_a_panel_asks_for_its_namespace_alone_unless_it_is_listed_with_a_reason() -> None:
    wide = set()
    for path in DASHBOARDS:
        for title, e in [*expressions(path, "prometheus"), *expressions(path, "loki")]:
            selectors = re.findall(r"\{[^{}]*\}", re.sub(r'line_format "[^"]*"', "", e))
            assert selectors, e
            if not all('namespace="lab-06"' in selector for selector in selectors):
                wide.add((path.stem, title))
    assert wide == WHOLE_CLUSTER.keys()


@per_dashboard
def test_panels_fill_the_grid_without_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    everything = dashboard(path)["panels"]
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))
    for panel in everything:
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not squares & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        taken |= squares


@per_dashboard
def test_every_panel_has_a_unit_and_says_what_it_tells_and_from_which_series(path: Path) -> None:
    for panel in panels(path):
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            if target["datasource"]["type"] == "prometheus":
                for series in re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)\{", target["expr"]):
                    assert f"`{series}`" in panel["description"], panel["title"]


@per_dashboard
def test_a_missing_series_is_a_hole_in_the_line(path: Path) -> None:
    for panel in panels(path):
        if panel["type"] == "timeseries":
            assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


def test_every_dashboard_of_a_lab_with_an_engine_or_a_gpu_embeds_the_gpu_section() -> None:
    section = [panel.build().title for panel in gpu_section().panels]
    for name in ("l02-gpu-metrics", "l05-gpu-and-llm", "l06-load-test-contract", "gpu-serving"):
        titles = [panel["title"] for panel in dashboard(build.FOLDER / f"{name}.json")["panels"]]
        start = titles.index("GPU")
        assert titles[start + 1 : start + 1 + len(section)] == section


def test_the_gpu_dashboard_shows_all_of_the_twelve_series() -> None:
    assert len(TWELVE) == 12
    questions = expressions(build.FOLDER / "l02-gpu-metrics.json", "prometheus")
    shown = {name for _, e in questions for name in re.findall(r"(DCGM_FI_DEV_[A-Z_]+)\{", e)}
    assert shown == TWELVE.keys()


def test_a_limit_that_is_drawn_is_the_one_at_which_the_alert_fires() -> None:
    rules = yaml.safe_load((REPO_ROOT / "helm-values" / "lab03" / "prometheus-rules.yaml").read_text(encoding="utf-8"))
    fires_above = {
        rule["alert"]: float(re.findall(r"> ([0-9.]+)", rule["expr"])[-1])
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    drawn = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for panel in panels(build.FOLDER / "l03-alerts.json")
        if panel["title"] in ALERT_PANELS.values()
    }
    assert {alert: drawn[panel] for alert, panel in ALERT_PANELS.items()} == fires_above


def test_a_configmap_carries_the_file_and_the_label_that_grafanas_sidecar_looks_for() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dashboards.grafana.configmaps", "L06", "L01"],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO_ROOT,
    )
    found = list(yaml.safe_load_all(done.stdout))
    assert [next(iter(one["data"])) for one in found] == ["l06-load-test-contract.json", "l01-instrument-panel.json"]
    assert [one["metadata"]["namespace"] for one in found] == ["lab-06", "lab-01"]
    for one in found:
        assert (one["apiVersion"], one["kind"]) == ("v1", "ConfigMap")
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        for name, text in one["data"].items():
            assert text == (build.FOLDER / name).read_text(encoding="utf-8")
            # The API server takes 1 MiB; kubectl apply keeps a second copy in an annotation of at most 256 KiB.
            assert len(text.encode()) < 256 * 1024
    assert found[0]["metadata"]["labels"]["lab"] == "l06"


def test_all_dashboards_can_go_to_one_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    assert configmaps.main(["--namespace", "monitoring"]) == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [one["metadata"]["name"] for one in found] == [f"dashboard-{path.stem}" for path in DASHBOARDS]
    assert found[-1]["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert {one["metadata"]["namespace"] for one in found} == {"monitoring"}


def test_a_lab_without_a_dashboard_is_refused_with_those_that_have_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert configmaps.main(["--namespace", "monitoring", "L06", "L96"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"no dashboard for L96; there is one for: L01, .*L10, gpu-serving\n$", err)


def test_the_serving_dashboard_is_narrowed_to_a_model_and_its_pods() -> None:
    selectors = [
        selector
        for panel in panels(SERVING)
        for target in panel["targets"]
        for selector in re.findall(r"([A-Za-z0-9_:]+)\{([^}]*)\}", target["expr"])
    ]
    assert len(selectors) > 50
    for series, matchers in selectors:
        assert 'pod=~"$pod"' in matchers, series
        of_model = series.startswith("vllm:") and series not in gpu_serving.WITHOUT_MODEL
        assert ('model_name=~"$model"' in matchers) == of_model, series


def test_series_that_name_no_model_are_known() -> None:
    lines = (DATA / "vllm-0.32-metrics.txt").read_text(encoding="utf-8").splitlines()
    nameless = {re.split(r"[{ ]", line)[0] for line in lines if line.startswith("vllm:") and "model_name=" not in line}
    assert nameless <= set(gpu_serving.WITHOUT_MODEL)


def test_every_variable_of_the_serving_dashboard_is_defined_used_and_offers_bounds_of_the_histograms() -> None:
    shown = dashboard(SERVING)
    defined = {variable["name"]: variable for variable in shown["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z_]+)\}?", json.dumps(shown["panels"]))) - {"__rate_interval"}
    assert used == defined.keys()
    text = (DATA / "vllm-0.32-metrics.txt").read_text(encoding="utf-8")
    for name, series in {"ttft_le": "time_to_first_token", "tpot_le": "request_time_per_output_token"}.items():
        bounds = set(re.findall(rf'vllm:{series}_seconds_bucket{{[^}}]*le="([^"]+)"', text))
        assert set(defined[name]["query"].split(",")) <= bounds
    for name in ("model", "pod"):
        assert (defined[name]["includeAll"], defined[name]["allValue"]) == (True, ".*")


def test_the_serving_dashboard_has_every_metric_that_phase_2_measures() -> None:
    labs = [lab for lab in load_catalog().labs() if lab.phase == 2 and isinstance(lab, LabSpec)]
    measured = {
        re.sub(r"_(?:bucket|sum|count)$", "", series)
        for lab in labs
        for measure in lab.measures
        for series in re.findall(r"((?:vllm:|DCGM_)[A-Za-z0-9_:]+)\{", measure.promql or "")
    }
    shown = {
        re.sub(r"_(?:bucket|sum|count)$", "", series)
        for _, expression in expressions(SERVING, "prometheus")
        for series in re.findall(r"([A-Za-z_:][A-Za-z0-9_:]*)\{", expression)
    }
    assert len(measured) > 10
    assert measured - shown == NOT_ON_THE_PAGE.keys()


NOT_ON_THE_PAGE: dict[str, str] = {}
"""Series that a lab of Phase 2 measures and the page leaves out, and why."""
