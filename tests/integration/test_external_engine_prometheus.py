"""Somebody else's Prometheus scrapes when it likes: once a minute is common, and no growth of a counter may be lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from resources import binaries, processes, prometheus_server
from resources.telemetry import Telemetry

INTERVAL_S = 60
GROWTH = 1000
"""Of the counter, between two scrapes."""
SCRAPES = 10


@pytest.fixture
def scraped_once_a_minute(tmp_path: Path) -> Iterator[tuple[str, datetime]]:
    """A Prometheus with the past ten minutes of a counter, and when its first sample was taken."""
    first = int(time.time()) - INTERVAL_S * SCRAPES
    lines = ["# TYPE tokens counter"]
    lines += [f'tokens_total{{team="llm"}} {GROWTH * i} {first + INTERVAL_S * i}' for i in range(SCRAPES)]
    samples = tmp_path / "samples.txt"
    samples.write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")
    backfill = [str(binaries.find("promtool")), "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*backfill, str(samples), str(tmp_path / "prometheus-data")], check=True, capture_output=True)
    state = tmp_path / "state"
    try:
        url = prometheus_server.start(interval_s=1, folder=tmp_path, environ=processes.marker(state, "lease"))
        yield url, datetime.fromtimestamp(first, UTC)
    finally:
        processes.end([process for found in processes.find_marked(state).values() for process in found])


@pytest.mark.parametrize("since_scrape_s", [1, 30, 59])
def test_a_counter_grows_from_the_last_scrape_before_the_load_however_long_ago_that_was(
    scraped_once_a_minute: tuple[str, datetime], since_scrape_s: int
) -> None:
    url, first = scraped_once_a_minute
    start = first + timedelta(seconds=4 * INTERVAL_S + since_scrape_s)
    end = first + timedelta(seconds=SCRAPES * INTERVAL_S)
    grown = Telemetry().increase(url, "tokens_total{$selector}", selector='team="llm"', start=start, end=end)
    # From the fifth sample, before the start, to the tenth. Had the sixth been the base, a fifth of it would be lost.
    assert grown == 5 * GROWTH
