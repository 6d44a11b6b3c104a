"""L01: request rate, latency, errors and the log stream of one HTTP server, and whether it is scraped at all."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.panels import LogQL, PromQL, lines, log_lines, number, quantiles, states
from dashboards.grafana.shell import Section, lab_dashboard

NOT_USERS = 'path!~"metrics|healthz|readyz"'
"""podinfo's scrapes and probes, left out: they are fast and many. Its requests_total can't tell them apart."""
ERROR_LIMIT = 0.01
"""Share of failed requests at which L03's alert fires."""


def build() -> Dashboard:
    return lab_dashboard(
        "L01",
        uid="l01-instrument-panel",
        about="Three panels that every service needs, the scrape that feeds them, and the log stream beside them.",
        namespaces_of="up",
        logs=True,
        sections=[
            Section(
                "Requests",
                [
                    lines(
                        "Request rate",
                        "Answers per second by HTTP status. Probes and scrapes count too.",
                        PromQL("sum by (status) (rate(http_requests_total{$NS}[$__rate_interval]))", "{{status}}"),
                        unit="reqps",
                        stacked=True,
                    ),
                    lines(
                        "Latency",
                        "Time to serve a request, without scrapes and probes. A quantile is interpolated within a "
                        "bucket, so it is as coarse as the buckets are.",
                        *quantiles("http_request_duration_seconds", 0.5, 0.95, where=NOT_USERS),
                        unit="s",
                    ),
                    lines(
                        "Errors",
                        "Share of the answers with status 5xx; 0 where there are answers and none failed. The line is "
                        "the limit of L03's alert.",
                        PromQL(
                            '(sum(rate(http_requests_total{$NS,status=~"5.."}[$__rate_interval])) or vector(0)) / '
                            "sum(rate(http_requests_total{$NS}[$__rate_interval]))",
                            "errors",
                        ),
                        unit="percentunit",
                        limit=ERROR_LIMIT,
                    ),
                ],
            ),
            Section(
                "Is it scraped",
                [
                    states(
                        "Targets",
                        "Whether Prometheus reached each target at its last scrape. A target that stops turns red "
                        "within one scrape; one that is missing here was never found.",
                        PromQL("max by (job, instance) (up{$NS})", "{{job}} {{instance}}"),
                        meanings={0: ("down", "red"), 1: ("up", "green")},
                        width=16,
                    ),
                    number(
                        "Slowest scrape",
                        "How long the slowest target took to answer its last scrape.",
                        PromQL("max(scrape_duration_seconds{$NS})"),
                        unit="s",
                        width=8,
                    ),
                ],
            ),
            Section(
                "Logs",
                [
                    lines(
                        "Log lines",
                        "Lines per second that reached Loki with this namespace as their label. None while there are "
                        "requests means that the way to Loki is broken, not that all is quiet.",
                        LogQL("sum by (container) (rate({$NS}[$__auto]))", "{{container}}"),
                        unit="short",
                        width=24,
                    ),
                    log_lines("Log stream", "Every line of the namespace, newest first.", LogQL("{$NS}")),
                ],
            ),
        ],
    )
