"""A real Prometheus scrapes a page that the test writes; measures come back in stack time, gaps as gaps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from lab_pipelines.catalog.measures import Measure
from resources import processes, prometheus_server
from resources.prometheus_server import ScrapeTarget
from resources.telemetry import Reading, Sample, Telemetry, TelemetryError, counter_increase, summarise
from tests.support.metrics_page import MetricsPage, metrics_page

SELECTOR = 'namespace="lab-06"'


@dataclass
class Watched:
    url: str
    page: MetricsPage
    telemetry: Telemetry

    def publish(self, text: str, *, scrapes: int = 1) -> datetime:
        """Put `text` on the page, wait until it has been scraped so often, and return when that was certain."""
        self.page.text = text
        for _ in range(scrapes):
            assert self.telemetry.wait_for_scrape(self.url, selector=SELECTOR, after=datetime.now(UTC), timeout_s=15)
        return datetime.now(UTC)

    def read(self, promql: str, start: datetime, *, over: str, unit: str = "requests", **extra: object) -> Reading:
        measure = Measure.model_validate({"name": "m", "unit": unit, "promql": promql, "over": over, **extra})
        return self.telemetry.read(
            self.url, measure, selector=SELECTOR, start=start, end=datetime.now(UTC), step_s=0.1, time_scale=5.0
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    with metrics_page() as page:
        environ = processes.marker(folder, "lease")
        url = prometheus_server.start(interval_s=0.1, folder=folder, environ=environ)
        prometheus_server.announce(url, [ScrapeTarget("vllm", page.url)], namespace="lab-06", folder=folder)
        yield Watched(url, page, Telemetry())
        processes.end(processes.find_marked(folder)["lease"])


def test_a_gauge_is_sampled_through_the_stage_and_keeps_its_statistic(watched: Watched) -> None:
    start = watched.publish("depth 2\n")
    watched.publish("depth 6\n", scrapes=4)
    query = "sum(depth{$selector})"
    assert watched.read(query, start, over="stage", statistic="max").value == 6
    assert watched.read(query, start, over="stage", statistic="min").value == 2
    mean = watched.read(query, start, over="stage", statistic="mean")
    assert mean.value is not None and 2 < mean.value < 6
    assert len(mean.samples) > 2


def test_a_rate_is_in_stack_seconds_and_a_gauge_is_as_it_is(watched: Watched) -> None:
    start = watched.publish("tokens_total 0\n")
    for value in range(1, 6):
        watched.publish(f"tokens_total {value * 100}\n")
    promql = "sum(rate(tokens_total{$selector}[$stage]))"
    wall = watched.read(promql, start, over="stage_end", unit="count")
    stack = watched.read(promql, start, over="stage_end", unit="tokens/s")
    assert wall.value is not None and stack.value is not None
    # Both readings are fractions of a second apart; five stack seconds pass in one wall second.
    assert wall.value / stack.value == pytest.approx(5.0, rel=0.3)


def test_a_missing_series_and_an_empty_histogram_are_gaps_with_their_reason(watched: Watched) -> None:
    buckets = "".join(f'ttft_bucket{{le="{le}"}} 0\n' for le in ("0.1", "1", "+Inf"))
    start = watched.publish(f"# TYPE ttft histogram\n{buckets}ttft_sum 0\nttft_count 0\n")
    watched.publish(watched.page.text, scrapes=4)
    missing = watched.read("sum(no_such_series{$selector})", start, over="stage", statistic="mean")
    assert missing.value is None and missing.gap == "Prometheus has no such series in this window"
    quantile = "histogram_quantile(0.5, sum by (le) (rate(ttft_bucket{$selector}[$stage])))"
    empty = watched.read(quantile, start, over="stage_end", unit="s")
    assert empty.value is None and empty.gap is not None and "NaN" in empty.gap


def test_a_counter_grows_through_a_reset_and_a_missing_counter_is_none(watched: Watched) -> None:
    watched.publish('done_total{reason="length"} 10\n')
    start = datetime.now(UTC)
    watched.publish('done_total{reason="length"} 25\n')
    watched.publish('done_total{reason="length"} 4\n')
    end = datetime.now(UTC) + timedelta(seconds=1)
    counter = 'done_total{reason="length",$selector}'
    grown = watched.telemetry.increase(watched.url, counter, selector=SELECTOR, start=start, end=end)
    assert grown == 15 + 4
    absent = watched.telemetry.increase(watched.url, "nothing{$selector}", selector=SELECTOR, start=start, end=end)
    assert absent is None


def test_a_query_that_prometheus_refuses_is_shown_with_its_answer(watched: Watched) -> None:
    # It parses, so the spec lets it pass; only evaluating it shows that the regular expression is none.
    wrong = 'label_replace(depth{$selector}, "x", "y", "job", "(")'
    with pytest.raises(TelemetryError, match=r"could not answer `label_replace\(depth.*invalid regular expression"):
        watched.read(wrong, datetime.now(UTC) - timedelta(seconds=1), over="stage_end")


def test_a_target_is_scraped_where_its_url_says_and_carries_the_labs_namespace() -> None:
    [group] = prometheus_server.target_groups(
        [ScrapeTarget("engine", "https://llm.example:8443/metrics")], namespace="lab-06"
    )
    assert group["targets"] == ["llm.example:8443"]
    assert group["labels"] == {
        "job": "engine",
        "namespace": "lab-06",
        "__scheme__": "https",
        "__metrics_path__": "/metrics",
    }


@pytest.mark.parametrize(
    ("values", "since", "grown"),
    [
        ([(1, 5), (2, 9)], 0, 4),  # nothing before: the first sample is the base
        ([(1, 5), (2, 9), (3, 12)], 2, 3),  # the last sample at or before the start is the base
        ([(1, 5), (2, 1), (3, 4)], 0, 4),  # a reset: 0 -> 1 -> 4
        ([(1, 5)], 0, 0),
        ([], 0, 0),
    ],
)
def test_counter_increase_counts_resets_from_zero(values: list[tuple[int, int]], since: float, grown: float) -> None:
    assert counter_increase([Sample(at, value) for at, value in values], since=since) == grown


def test_a_query_that_answers_several_series_is_a_gap_not_a_guess() -> None:
    measure = Measure(name="m", unit="requests", promql="x{$selector}", over="stage")
    reading = summarise([[Sample(1, 1)], [Sample(1, 2)]], measure, promql="x", time_scale=1)
    assert reading.value is None and "2 series" in (reading.gap or "")
