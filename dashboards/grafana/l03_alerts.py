"""L03: the alerts as Prometheus has them, and each alert's condition with its limit drawn.

The conditions here are charts: they show how near a limit is, over the time shown. The rules themselves, with their own
windows, are in helm-values/lab03/prometheus-rules.yaml.
"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm, pods
from dashboards.grafana.gpu import memory_share
from dashboards.grafana.l01_instrument_panel import ERROR_LIMIT, NOT_USERS
from dashboards.grafana.panels import PanelBuilder, PromQL, lines, rows, states
from dashboards.grafana.shell import Section, lab_dashboard

LATENCY_LIMIT_S = 3.0
"""95th percentile of latency at which the alert fires."""
ERROR_BUDGET = 0.01
"""Share of requests that may fail under an objective of 99 %: a burn rate of 1 spends it exactly."""
FAST_BURN, SLOW_BURN = 14.4, 6.0
"""Burn rates that page, a month's budget gone in two days and in five: The Site Reliability Workbook, chapter 5."""

_FAILED = 'http_requests_total{$NS,status=~"5.."}'
_ANSWERED = "http_requests_total{$NS}"


def build() -> Dashboard:
    return lab_dashboard(
        "L03",
        uid="l03-alerts",
        about="Which alert is pending or firing, how far each condition is from its limit, and what was sent out.",
        namespaces_of="up",
        sections=[
            Section("Alerts", [_states(), _firing()]),
            Section(
                "The five conditions",
                [memory_share(), pods.restarts(), _error_ratio(), _latency(), llm.queue(), _targets()],
            ),
            Section("Burn rate of the error budget", [_fast_burn(), _slow_burn()]),
            Section("Alertmanager", [_notifications(), _failed_notifications()]),
        ],
    )


def _states() -> PanelBuilder:
    return states(
        "Alerts over time",
        "Pending: the condition holds, but not yet for as long as the rule asks. A gap is an alert that is neither.",
        PromQL(
            'max by (alertname) (2 * ALERTS{$NS,alertstate="firing"} or ALERTS{$NS,alertstate="pending"})',
            "{{alertname}}",
        ),
        meanings={1: ("pending", "orange"), 2: ("firing", "red")},
    )


def _firing() -> PanelBuilder:
    return rows(
        "Alerts now",
        "Pending and firing, with the labels by which Alertmanager groups and routes them.",
        PromQL("ALERTS{$NS}"),
        hide=("Value", "uid", "prometheus"),
    )


def _error_ratio() -> PanelBuilder:
    return lines(
        "Errors",
        "Share of the answers with status 5xx, by job.",
        PromQL(_ratio("$__rate_interval"), "{{job}}"),
        unit="percentunit",
        limit=ERROR_LIMIT,
    )


def _latency() -> PanelBuilder:
    return lines(
        "Latency, p95",
        "By job, without scrapes and probes. Beyond the histogram's last finite bucket a quantile can't be told, and "
        "reads as that bucket's bound.",
        PromQL(
            "histogram_quantile(0.95, sum by (le, job) "
            f"(rate(http_request_duration_seconds_bucket{{$NS,{NOT_USERS}}}[$__rate_interval])))",
            "{{job}}",
        ),
        unit="s",
        limit=LATENCY_LIMIT_S,
    )


def _targets() -> PanelBuilder:
    return states(
        "Targets",
        "A condition whose series are gone never holds: no alert above means nothing while a target is red here.",
        PromQL("max by (job, instance) (up{$NS})", "{{job}} {{instance}}"),
        meanings={0: ("down", "red"), 1: ("up", "green")},
        width=8,
    )


def _fast_burn() -> PanelBuilder:
    return _burn(
        "Fast burn",
        "Times the errors that the budget allows. The alert needs both windows above the line: the long one says that "
        "it matters, the short one that it still goes on.",
        ("1h", "5m"),
        FAST_BURN,
    )


def _slow_burn() -> PanelBuilder:
    return _burn(
        "Slow burn",
        "The same over longer windows, for errors that stay below the fast alert.",
        ("6h", "30m"),
        SLOW_BURN,
    )


def _burn(title: str, says: str, windows: tuple[str, str], limit: float) -> PanelBuilder:
    queries = [PromQL(f"({_ratio(window)}) / {ERROR_BUDGET:g}", f"{window} {{{{job}}}}") for window in windows]
    return lines(title, says, *queries, unit="short", limit=limit, width=12)


def _ratio(window: str) -> str:
    """Failed answers of all, by job, over `window`; 0 where none failed, nothing where nobody asked."""
    answered = f"sum by (job) (rate({_ANSWERED}[{window}]))"
    return f"(sum by (job) (rate({_FAILED}[{window}])) or 0 * {answered}) / {answered}"


def _notifications() -> PanelBuilder:
    return lines(
        "Notifications sent",
        "By receiver kind, of the whole cluster: Alertmanager's own series name no lab.",
        PromQL(
            "sum by (integration) (increase(alertmanager_notifications_total{}[$__rate_interval]))", "{{integration}}"
        ),
        unit="short",
        width=12,
    )


def _failed_notifications() -> PanelBuilder:
    return lines(
        "Notifications that failed",
        "By reason. An alert that fires and can't be delivered is seen here and nowhere else.",
        PromQL(
            "sum by (integration, reason) (increase(alertmanager_notifications_failed_total{}[$__rate_interval]))",
            "{{integration}} {{reason}}",
        ),
        unit="short",
        width=12,
        limit=0,
    )
