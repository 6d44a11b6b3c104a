"""L72's alert through the real promtool: it fires on two signals that agree, and on nothing less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lab_pipelines.deployment import REPO_ROOT
from tests.support.alert_tests import promtool, unit_test, write_rules

LAB72 = REPO_ROOT / "helm-values" / "lab72"


@pytest.mark.parametrize("time_scale", [1.0, 20.0, 1000.0])
def test_promtool_accepts_the_rule_at_every_speed(tmp_path: Path, time_scale: float) -> None:
    checked = promtool(
        "check", "rules", str(write_rules(LAB72, tmp_path, time_scale=time_scale, scrape_interval_s=0.1))
    )
    assert checked.returncode == 0, checked.stderr
    assert "1 rules found" in checked.stdout


def test_it_fires_when_it_must_and_only_then(tmp_path: Path) -> None:
    write_rules(LAB72, tmp_path)
    tested = unit_test(LAB72, tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"for": "900000ms"', '"for": "300000ms"'),
        ('"for": "900000ms"', '"for": "3600000ms"'),
        (" and on (namespace) ", " or "),
        ("< 1", "< 10"),
        ("max_over_time(vllm:num_requests_running", "min_over_time(vllm:num_requests_running"),
        ('+ max_over_time(vllm:num_requests_waiting{namespace=~\\"lab-.+\\"}[120000ms])', ""),
        ("max by (namespace) (max_over_time(DCGM", "min by (namespace) (max_over_time(DCGM"),
        ("lab-.+", ".+"),
    ],
    ids=["too early", "too late", "one signal", "busy", "between scrapes", "waiting", "one of two", "every namespace"],
)
def test_the_unit_tests_notice_a_changed_rule(tmp_path: Path, right: str, wrong: str) -> None:
    rules = write_rules(LAB72, tmp_path)
    text = rules.read_text()
    assert right in text
    rules.write_text(text.replace(right, wrong))
    tested = unit_test(LAB72, tmp_path)
    assert tested.returncode != 0
    assert re.search("alertname: GpuIdle", tested.stdout + tested.stderr)


def test_its_route_names_only_receivers_that_there_are() -> None:
    config = yaml.safe_load((LAB72 / "kube-prometheus-stack.yaml").read_text())["alertmanager"]["config"]
    used = {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])}
    assert used == {receiver["name"] for receiver in config["receivers"]}
