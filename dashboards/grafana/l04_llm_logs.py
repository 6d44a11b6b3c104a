"""L04: latency, throughput and requests from the engine's log lines alone, and the histogram they should agree with.

The lines are JSON, one per finished request, with `event`, `request_id`, `model`, `finished_reason`, `prompt_tokens`,
`output_tokens`, `ttft_s`, `e2e_s` and `output_tokens_per_s`, as the modelled server writes them.
"""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import llm
from dashboards.grafana.panels import LogQL, PanelBuilder, lines, log_lines
from dashboards.grafana.shell import SCALED_TIME, Section, lab_dashboard

# The line filter comes first: Loki then parses the JSON of the lines that matter, not of all.
_FINISHED = '{$NS} |= "request_finished" | json | event="request_finished"'


def build() -> Dashboard:
    return lab_dashboard(
        "L04",
        uid="l04-llm-logs",
        about=f"What an engine's log says of its requests, for an engine whose metrics one can't change. {SCALED_TIME}",
        namespaces_of=None,
        logs=True,
        sections=[
            Section("From the log", [_ttft(), _end_to_end(), _output_rate(), _decode_rate(), _finished(), _levels()]),
            Section("From the metrics, to compare", [llm.ttft(), llm.end_to_end(), llm.throughput()]),
            Section("Requests", [_requests()]),
        ],
    )


def _quantile(field: str, q: float) -> LogQL:
    """A quantile of a field of the finished requests, by model. Lines whose field is no number are left out."""
    return LogQL(
        f'quantile_over_time({q:g}, {_FINISHED} | unwrap {field} | __error__="" [$__auto]) by (model)',
        f"p{q * 100:g} {{{{model}}}}",
    )


def _ttft() -> PanelBuilder:
    return lines(
        "Time to first token",
        "Quantiles of the very requests of each interval, from their field ttft_s: not interpolated between buckets, "
        "as a histogram's are.",
        _quantile("ttft_s", 0.5),
        _quantile("ttft_s", 0.95),
        unit="s",
    )


def _end_to_end() -> PanelBuilder:
    return lines(
        "End-to-end latency",
        "The same, from the field e2e_s.",
        _quantile("e2e_s", 0.5),
        _quantile("e2e_s", 0.95),
        unit="s",
    )


def _output_rate() -> PanelBuilder:
    return lines(
        "Output tokens per second",
        "Sum of the field output_tokens over the interval. A request counts whole when it ends, so this lags behind "
        "the server's counter by as much as a request lasts.",
        LogQL(f'sum by (model) (rate({_FINISHED} | unwrap output_tokens | __error__="" [$__auto]))', "{{model}}"),
        unit="short",
    )


def _decode_rate() -> PanelBuilder:
    return lines(
        "Output tokens per second of one request",
        "Mean of the field output_tokens_per_s: what one user sees, not what the server does for all.",
        LogQL(
            f'avg_over_time({_FINISHED} | unwrap output_tokens_per_s | __error__="" [$__auto]) by (model)', "{{model}}"
        ),
        unit="short",
    )


def _finished() -> PanelBuilder:
    return lines(
        "Finished requests",
        "Lines per second by the reason that ended the request.",
        LogQL(f"sum by (finished_reason) (rate({_FINISHED} [$__auto]))", "{{finished_reason}}"),
        unit="reqps",
    )


def _levels() -> PanelBuilder:
    return lines(
        "Log lines by level",
        "Errors first: a request that failed before it was scheduled leaves no line of its own above.",
        LogQL("sum by (level) (rate({$NS} | json [$__auto]))", "{{level}}"),
        unit="short",
    )


def _requests() -> PanelBuilder:
    return log_lines(
        "Requests",
        "One line per finished request: its id, model, tokens and times. Open one to see every field.",
        LogQL(
            f'{_FINISHED} | line_format "{{{{.request_id}}}} {{{{.model}}}} in={{{{.prompt_tokens}}}} '
            'out={{.output_tokens}} ttft={{.ttft_s}}s e2e={{.e2e_s}}s {{.output_tokens_per_s}} tokens/s"'
        ),
    )
