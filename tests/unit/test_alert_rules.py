"""Rules and routes at a stack's own speed, L03's alerts through the real promtool, and the timeline of an alert."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab_pipelines.deployment import REPO_ROOT
from resources import alert_rules, alertmanager_server, durations
from resources.alert_rules import RulesError
from resources.alerting import Active, AlertTimeline, active_since, furthest, rule_names, when_firing, when_notified
from resources.cluster import ClusterError
from tests.support.alert_tests import promtool, unit_test, write_rules

LAB03 = REPO_ROOT / "helm-values" / "lab03"
RULES = LAB03 / alert_rules.FILE


def scaled(expr: str, *, time_scale: float) -> str:
    return alert_rules.scaled_promql(
        expr,
        ranged=lambda text: durations.scaled(text, time_scale),
        moved=lambda text: durations.scaled(text, time_scale),
    )


def document(**rule: Any) -> dict[str, Any]:
    return {
        "spec": {"groups": [{"name": "g", "interval": "15s", "rules": [{"alert": "A", "expr": "up == 0", **rule}]}]}
    }


def local_rule(**rule: Any) -> tuple[dict[str, Any], list[str]]:
    local = alert_rules.local_rules(document(**rule), time_scale=20.0, scrape_interval_s=0.1, source="rules")
    return local.content["groups"][0]["rules"][0], local.notes


# --- durations ---


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("0", 0), ("0s", 0), ("250ms", 250), ("15s", 15_000), ("1h30m", 5_400_000), ("2d", 172_800_000)],
)
def test_a_duration_is_read_as_prometheus_reads_it(text: str, milliseconds: int) -> None:
    assert durations.to_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "5min", "1.5h"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration such as 30s"):
        durations.to_ms(text)


# --- expressions ---


@pytest.mark.parametrize(
    ("expr", "twenty_times_as_fast"),
    [
        ("rate(x[5m])", "rate(x[15000ms])"),
        ("rate(x[ 5m ])", "rate(x[15000ms])"),
        ("max_over_time(rate(x[5m])[1h:1m])", "max_over_time(rate(x[15000ms])[180000ms:3000ms])"),
        ("max_over_time(x[1h:])", "max_over_time(x[180000ms:])"),
        ("x offset 1h > x offset -10m", "x offset 180000ms > x offset -30000ms"),
        # What only looks like a duration stays: label values, metric names, numbers, comments.
        ('x{a="[5m] offset 5m"} > 300', 'x{a="[5m] offset 5m"} > 300'),
        ("x{a=~'[5m]'}", "x{a=~'[5m]'}"),
        (r'x{a="\"[5m]"}', r'x{a="\"[5m]"}'),
        ("job:errors:ratio_rate5m > 0.1 # of [5m]", "job:errors:ratio_rate5m > 0.1 # of [5m]"),
    ],
)
def test_only_the_durations_of_an_expression_are_scaled(expr: str, twenty_times_as_fast: str) -> None:
    assert scaled(expr, time_scale=20.0) == twenty_times_as_fast


def test_a_stack_at_its_own_speed_keeps_its_rules() -> None:
    asked = alert_rules.load(RULES)
    local = alert_rules.local_rules(asked, time_scale=1.0, scrape_interval_s=1.0, source="rules")
    assert local.notes == []
    for group, before in zip(local.content["groups"], asked["spec"]["groups"], strict=True):
        assert durations.to_ms(group["interval"]) == durations.to_ms(before["interval"])
        for rule, was in zip(group["rules"], before["rules"], strict=True):
            assert durations.to_ms(rule.get("for", "0")) == durations.to_ms(was.get("for", "0"))
            assert {k: v for k, v in rule.items() if k not in ("for", "expr")} == {
                k: v for k, v in was.items() if k not in ("for", "expr")
            }


def test_waits_and_ranges_shrink_with_the_stacks_time() -> None:
    rule, notes = local_rule(**{"for": "2m", "keep_firing_for": "10m", "expr": "rate(x[5m]) > 3"})
    assert (rule["for"], rule["keep_firing_for"], rule["expr"]) == ("6000ms", "30000ms", "rate(x[15000ms]) > 3")
    assert notes == []


def test_what_would_be_too_short_to_tell_is_lengthened_and_told() -> None:
    # 15 s at 20 times the speed is an evaluation every 750 ms.
    rule, notes = local_rule(**{"for": "10s", "expr": "rate(x[20s]) > 0"})
    assert (rule["for"], rule["expr"]) == ("1500ms", "rate(x[1500ms]) > 0")
    assert [note.split(" at ")[0] for note in notes] == ["rules: group g: A: for: 10s", "rules: group g: A: [20s]: 20s"]
    assert all("was made 1500 ms" in note for note in notes)


def test_an_alert_that_fires_at_once_still_does() -> None:
    rule, notes = local_rule(**{"for": "0s"})
    assert (rule["for"], notes) == ("0ms", [])
    assert "for" not in local_rule()[0]


def test_a_groups_interval_is_never_shorter_than_the_scrape_interval() -> None:
    local = alert_rules.local_rules(document(), time_scale=1000.0, scrape_interval_s=0.1, source="rules")
    assert local.content["groups"][0]["interval"] == "100ms"
    assert "interval: 15s at 1000 times the speed is 15 ms" in local.notes[0]


def test_a_wrong_wait_is_named_with_its_rule() -> None:
    with pytest.raises(RulesError, match="rules: group g: A: for: 'soon' is not a duration"):
        local_rule(**{"for": "soon"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("kind: ConfigMap", "kind: expected PrometheusRule"),
        ("kind: PrometheusRule", "spec.groups: expected a list of groups"),
        ("- 1", "kind: expected PrometheusRule"),
        ("{", "can't be read as YAML"),
    ],
)
def test_a_file_that_is_no_rules_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(content)
    with pytest.raises(RulesError, match=message):
        alert_rules.load(path)


# --- L03's rules, through promtool ---


@pytest.mark.parametrize("time_scale", [1.0, 20.0, 1000.0])
def test_promtool_accepts_the_rules_at_every_speed(tmp_path: Path, time_scale: float) -> None:
    checked = promtool(
        "check", "rules", str(write_rules(LAB03, tmp_path, time_scale=time_scale, scrape_interval_s=0.1))
    )
    assert checked.returncode == 0, checked.stderr
    assert "11 rules found" in checked.stdout


def test_each_alert_fires_when_it_must_and_only_then(tmp_path: Path) -> None:
    write_rules(LAB03, tmp_path)
    tested = unit_test(LAB03, tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_unit_test_and_what_a_person_needs() -> None:
    alerts = {
        rule["alert"]: rule
        for group in alert_rules.load(RULES)["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    tests = yaml.safe_load((LAB03 / "rules_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for name, rule in alerts.items():
        assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name} == {True, False}, name
        assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["labels"]["team"]


@pytest.mark.parametrize(
    "changes",
    [
        # Each alert's threshold, so that it fires too late …
        {
            "RequestErrorRateHigh": ("ratio_rate5m > 0.01", "ratio_rate5m > 0.06"),
            "RequestLatencyHigh": ("> 3", "> 4"),
            "QueueDepthHigh": ("> 10", "> 30"),
            "GpuMemoryHigh": ("> 0.9", "> 0.99"),
            "PodRestarted": ("[600000ms]) > 0", "[600000ms]) > 1"),
            "ErrorBudgetBurnFast": ("> 14.4 * 0.01", "> 30 * 0.01"),
            "ErrorBudgetBurnSlow": ("> 6 * 0.01", "> 30 * 0.01"),
        },
        # … or too early; and one window of the two is enough.
        {
            "RequestErrorRateHigh": ("ratio_rate5m > 0.01", "ratio_rate5m > 0.001"),
            "RequestLatencyHigh": ("> 3", "> 2"),
            "QueueDepthHigh": ("> 10", "> 9"),
            "GpuMemoryHigh": ("> 0.9", "> 0.8"),
            "PodRestarted": ("[600000ms]) > 0", "[600000ms]) >= 0"),
            "ErrorBudgetBurnFast": ("14.4 * 0.01 and", "14.4 * 0.01 or"),
            "ErrorBudgetBurnSlow": ("6 * 0.01 and", "6 * 0.01 or"),
        },
        {
            "RequestErrorRateHigh": ('"for": "120000ms"', '"for": "0ms"'),
            "RequestLatencyHigh": ("metrics|healthz|readyz", "none"),
        },
        {"RequestErrorRateHigh": ("lab-.+", ".+")},
    ],
    ids=["too late", "too early", "at once and with scrapes", "every namespace"],
)
def test_the_unit_tests_notice_a_changed_rule(tmp_path: Path, changes: dict[str, tuple[str, str]]) -> None:
    rules = write_rules(LAB03, tmp_path)
    text = rules.read_text()
    for right, wrong in changes.values():
        assert right in text
        text = text.replace(right, wrong)
    rules.write_text(text)
    tested = unit_test(LAB03, tmp_path)
    assert tested.returncode != 0
    noticed = set(re.findall(r"alertname: (\w+)", tested.stdout + tested.stderr))
    assert changes.keys() <= noticed


# --- routes ---

CONFIG = {
    "route": {
        "receiver": "tickets",
        "group_by": ["namespace", "alertname"],
        "group_interval": "5m",
        "routes": [{"matchers": ['severity = "critical"'], "receiver": "page", "group_wait": "10s"}],
    },
    "receivers": [
        {"name": "null"},
        {"name": "tickets", "slack_configs": [{"api_url_file": "x"}]},
        {"name": "page", "webhook_configs": [{"url_file": "y"}], "pagerduty_configs": []},
    ],
    "templates": ["somewhere"],
}


def local_config(config: dict[str, Any], *, time_scale: float = 20.0) -> dict[str, Any]:
    return alertmanager_server.local_config(config, webhook_url="http://w", time_scale=time_scale, source="values")


def test_routes_keep_their_groups_and_wait_in_stack_time() -> None:
    route = local_config(CONFIG)["route"]
    assert route["group_by"] == ["namespace", "alertname"]
    # group_wait and repeat_interval are Alertmanager's defaults: 30 s and 4 h.
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("1500ms", "15000ms", "720000ms")
    [page] = route["routes"]
    # A wait that a route inherits is not repeated there.
    assert page == {"matchers": ['severity = "critical"'], "receiver": "page", "group_wait": "500ms"}


def test_every_receiver_that_notifies_somebody_notifies_the_webhook() -> None:
    hook = [{"url": "http://w", "send_resolved": True}]
    assert local_config(CONFIG)["receivers"] == [
        {"name": "null"},
        {"name": "tickets", "webhook_configs": hook},
        {"name": "page", "webhook_configs": hook},
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected a `route` and a list of `receivers`"),
        ({**CONFIG, "route": {"group_wait": "soon"}}, "group_wait: 'soon' is not a duration"),
    ],
)
def test_a_config_that_is_wrong_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ClusterError, match=f"values: alertmanager.config: {message}"):
        local_config(config)


def test_the_config_of_l03_names_only_receivers_that_it_has() -> None:
    values = yaml.safe_load((LAB03 / "kube-prometheus-stack.yaml").read_text())
    config = values["alertmanager"]["config"]
    used = {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])}
    assert used == {receiver["name"] for receiver in config["receivers"]}


# --- timelines ---

T0 = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
LABELS = {"alertname": "A", "namespace": "lab-03", "pod": "http-0"}
ACTIVE = Active(LABELS, T0 + timedelta(seconds=1))


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def alerts(*active_at: str, alertname: str = "A") -> dict[str, Any]:
    labels = {"alertname": alertname, "namespace": "lab-03"}
    return {"alerts": [{"labels": labels, "activeAt": when, "state": "pending"} for when in active_at]}


def test_an_alert_that_was_active_before_is_not_what_the_step_caused() -> None:
    answer = alerts("2026-03-04T09:59:59.999999999Z", "2026-03-04T10:00:01.123456789Z")
    [found] = active_since(answer, "A", T0)
    assert found.at == datetime(2026, 3, 4, 10, 0, 1, 123456, tzinfo=UTC)
    assert active_since(answer, "B", T0) == []


def history(*samples: float, state: str = "firing", **labels: str) -> dict[str, Any]:
    metric = {"__name__": "ALERTS", "alertstate": state, **LABELS, **labels}
    return {"result": [{"metric": metric, "values": [[T0.timestamp() + s, "1"] for s in samples]}]}


def test_an_alert_fires_at_its_first_firing_evaluation_since_it_became_active() -> None:
    assert when_firing(ACTIVE, history(-300, 7, 8)) == at(7)
    assert when_firing(ACTIVE, history(7, state="pending")) is None
    assert when_firing(ACTIVE, history(7, pod="vllm-0")) is None
    # Without a `for` it fires at the evaluation that made it active, whose sample is cut to the millisecond.
    assert when_firing(ACTIVE._replace(at=at(1.0004)), history(1.0, 2)) == at(1.0004)


def notification(seconds: float, *, status: str = "firing", **labels: str) -> dict[str, Any]:
    return {"at": T0.timestamp() + seconds, "status": status, "alertname": "A", "labels": {**LABELS, **labels}}


def test_an_alert_is_notified_by_the_first_notification_of_its_own_since_then() -> None:
    lines = [notification(-5), notification(2, pod="vllm-0"), notification(3, status="resolved"), notification(9)]
    assert when_notified(ACTIVE, lines, T0) == at(9)
    assert when_notified(ACTIVE, lines[:3], T0) is None
    assert when_notified(ACTIVE, [notification(9, prometheus="external-label")], T0) == at(9)


def test_of_several_alerts_the_one_that_came_furthest_counts_and_then_the_earliest() -> None:
    pending, firing = AlertTimeline(at(1), None, None), AlertTimeline(at(2), at(3), None)
    early, late = AlertTimeline(at(4), at(5), at(6)), AlertTimeline(at(4), at(5), at(7))
    assert furthest([pending, firing]) == firing
    assert furthest([firing, late, early, pending]) == early
    assert furthest([]) == AlertTimeline(None, None, None)


def test_the_names_of_all_groups_are_known() -> None:
    answer = {"groups": [{"rules": [{"name": "A"}, {"name": "B"}]}, {"rules": [{"name": "C"}]}]}
    assert rule_names(answer) == {"A", "B", "C"}
