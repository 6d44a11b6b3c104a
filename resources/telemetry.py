"""What Prometheus knows of a stage: the lab's measures over each window, and counters over a whole step.

Belongs here: asking PromQL through prometheus-api-client, and the pure rules from its answers to one number.
Doesn't belong here: running a Prometheus (prometheus_server.py), or the queries themselves (the lab's spec).

A series that is missing, has too few samples, or answers NaN is a gap with its reason, never a zero.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from string import Template
from typing import TYPE_CHECKING, Any

from dagster import ConfigurableResource

from lab_pipelines.catalog.measures import Measure
from lab_pipelines.catalog.units import to_stack_time

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect

_STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "max": max,
    "min": min,
    "last": lambda values: values[-1],
}


_BASE_LOOKBACK_S = 300
"""How far before a window the last scrape may lie that counters are measured from. Five minutes, as in Prometheus's own
staleness rule: somebody else's Prometheus may scrape once a minute, and without that scrape the first one within the
window would be the base, and all growth before it lost."""


OBSERVE_EVERY_S = 0.1
"""Wall seconds between two looks at a condition that is waited for."""


class TelemetryError(RuntimeError):
    """Prometheus could not be asked, or refused a query. The message holds the query and its answer."""


@dataclass(frozen=True)
class Sample:
    at: float
    """Unix time in seconds."""
    value: float


@dataclass(frozen=True)
class Reading:
    """One measure in one stage. `value` is None exactly when `gap` says why."""

    value: float | None
    gap: str | None
    samples: list[Sample]
    promql: str | None
    """As it was sent; None for a measure by SQL."""


@dataclass(frozen=True)
class Waited:
    """How a wait for a condition ended. `waited_s` is in stack seconds, `value` the last one that was seen."""

    held: bool
    waited_s: float
    value: float | None


class Telemetry(ConfigurableResource):
    """Asks the session's Prometheus."""

    timeout_s: int = 10
    """Per query. The client's own default is to wait for ever."""

    def read(
        self,
        prometheus_url: str,
        measure: Measure,
        *,
        selector: str,
        start: datetime,
        end: datetime,
        step_s: float,
        time_scale: float,
    ) -> Reading:
        """A measure by PromQL over the window, in its unit and in stack time. Raises `TelemetryError`."""
        promql = measure.query(selector=selector, stage_s=(end - start).total_seconds())
        client = self._client(prometheus_url)
        if measure.over != "stage":
            answer = _ask(promql, lambda: client.custom_query(promql, params={"time": end.timestamp()}))
            series = [[Sample(float(one["value"][0]), float(one["value"][1]))] for one in answer]
        else:
            series = ask_range(client, promql, start_s=start.timestamp(), end_s=end.timestamp(), step_s=step_s)
        return summarise(series, measure, promql=promql, time_scale=time_scale)

    def wait_until(
        self,
        prometheus_url: str,
        promql: str,
        holds: Callable[[float], bool],
        *,
        selector: str,
        within_s: float,
        time_scale: float,
    ) -> Waited:
        """Ask until `promql` answers one value that `holds`, for at most `within_s` stack seconds.

        Raises `TelemetryError`.
        """
        asked = Template(promql).substitute(selector=selector)
        began, seen = time.monotonic(), None
        client = self._client(prometheus_url)
        while (waited_s := (time.monotonic() - began) * time_scale) <= within_s:
            answer = _ask(asked, lambda: client.custom_query(asked))
            seen = float(answer[0]["value"][1]) if len(answer) == 1 else None
            if seen is not None and holds(seen):
                return Waited(held=True, waited_s=waited_s, value=seen)
            time.sleep(OBSERVE_EVERY_S)  # Prometheus has no way to tell us
        return Waited(held=False, waited_s=waited_s, value=seen)

    def increase(
        self, prometheus_url: str, counter: str, *, selector: str, start: datetime, end: datetime
    ) -> float | None:
        """How much `counter` grew between two moments, summed over its series; None if there is no such series.

        From raw samples, because PromQL's increase() extrapolates to the window's edges. Raises `TelemetryError`.
        """
        seconds = math.ceil((end - start).total_seconds()) + _BASE_LOOKBACK_S
        promql = f"{Template(counter).substitute(selector=selector)}[{seconds}s]"
        client = self._client(prometheus_url)
        answer = _ask(promql, lambda: client.custom_query(promql, params={"time": end.timestamp()}))
        if not answer:
            return None
        return math.fsum(counter_increase(_samples(one["values"]), since=start.timestamp()) for one in answer)

    def wait_for_scrape(self, prometheus_url: str, *, selector: str, after: datetime, timeout_s: float) -> bool:
        """Wait until every target that is known has been scraped after `after`; False if that took too long."""
        promql = f"min(timestamp(up{{{selector}}}))"
        deadline = time.monotonic() + timeout_s
        client = self._client(prometheus_url)
        while time.monotonic() < deadline:
            answer = _ask(promql, lambda: client.custom_query(promql))
            if answer and float(answer[0]["value"][1]) > after.timestamp():
                return True
            time.sleep(0.1)  # Prometheus has no way to tell us; a scrape comes every few tenths of a second
        return False

    def _client(self, url: str) -> PrometheusConnect:
        return _kept_client(url, self.timeout_s)


@lru_cache(maxsize=2)
def _kept_client(url: str, timeout_s: float) -> PrometheusConnect:
    """Kept for the questions to come, which are hundreds of one Prometheus: a new one connects anew for each."""
    return _connect(url, timeout_s)


def _connect(url: str, timeout_s: float, **options: Any) -> PrometheusConnect:
    from prometheus_api_client import PrometheusConnect

    # Its stubs lag: seconds may be a fraction.
    return PrometheusConnect(url, timeout=timeout_s, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]


def ask_now(prometheus_url: str, promql: str, *, at: datetime, timeout_s: float) -> list[dict[str, Any]]:
    """What `promql` answers at one moment, as Prometheus's API has it. Raises `TelemetryError`.

    `timeout_s` bounds Prometheus's own work and each wait for its bytes. Asked once: a caller with a deadline has no
    time for the client's three silent retries.
    """
    from urllib3.util.retry import Retry

    when = {"time": at.timestamp(), "timeout": f"{timeout_s:g}s"}
    with _connect(prometheus_url, timeout_s, retry=Retry(total=0)) as client:
        return _ask(promql, lambda: client.custom_query(promql, params=when))


def ask_range(
    client: PrometheusConnect, promql: str, *, start_s: float, end_s: float, step_s: float
) -> list[list[Sample]]:
    """The samples of each series that `promql` answers between two Unix times. Raises `TelemetryError`."""
    start, end = (datetime.fromtimestamp(at_s, UTC) for at_s in (start_s, end_s))
    # custom_query_range rounds both ends to whole seconds; `params` puts the true ones back.
    window = {"start": start_s, "end": end_s}
    answer = _ask(promql, lambda: client.custom_query_range(promql, start, end, step=f"{step_s:g}", params=window))
    return [_samples(one["values"]) for one in answer]


def summarise(series: list[list[Sample]], measure: Measure, *, promql: str, time_scale: float) -> Reading:
    """From Prometheus's answer to one number in stack time, or a gap. Pure."""

    def gap(reason: str) -> Reading:
        return Reading(value=None, gap=reason, samples=[], promql=promql)

    if not series:
        return gap("Prometheus has no such series in this window")
    if len(series) > 1:
        return gap(f"the query answers {len(series)} series; it must aggregate to one")
    samples = [Sample(s.at, to_stack_time(s.value, measure.unit, time_scale)) for s in series[0]]
    finite = [s for s in samples if math.isfinite(s.value)]
    if not finite:
        return gap("every sample is NaN: nothing was observed in this window")
    value = _STATISTICS[measure.statistic]([s.value for s in finite])
    return Reading(value=value, gap=None, samples=finite, promql=promql)


def counter_increase(samples: Sequence[Sample], *, since: float) -> float:
    """Growth of one counter series from its last sample at or before `since` (else its first) on.

    A sample below its predecessor is a reset: the counter began again at zero. Pure.
    """
    before = [s for s in samples if s.at <= since]
    chain = before[-1:] + [s for s in samples if s.at > since]
    grown = 0.0
    for previous, current in itertools.pairwise(chain):
        grown += current.value - previous.value if current.value >= previous.value else current.value
    return grown


def _samples(values: Sequence[Sequence[Any]]) -> list[Sample]:
    return [Sample(float(at), float(value)) for at, value in values]


def _ask(promql: str, call: Callable[[], Any]) -> Any:
    from prometheus_api_client.exceptions import PrometheusApiClientException
    from requests import RequestException

    try:
        return call()
    except (PrometheusApiClientException, RequestException) as error:
        raise TelemetryError(f"Prometheus could not answer `{promql}`: {error}") from None
