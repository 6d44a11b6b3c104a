"""Pages become OpenMetrics with the labels and timestamps that Prometheus would have given them."""

from __future__ import annotations

from pathlib import Path

from lab_pipelines.rehearsal.scrapes import Scrapes, ScrapeTarget

PAGE = b"""# HELP a_total Counts.
# TYPE a_total counter
a_total{x="1"} 2.0
a_created{x="1"} 1700000000.5
plain 3.5
"""


def test_a_sample_gets_the_target_s_labels_and_the_time_and_comments_go() -> None:
    samples = ScrapeTarget('job="vllm"').samples(1000.0625, PAGE)
    assert samples == ['a_total{job="vllm",x="1"} 2.0 1000.062\n', 'plain{job="vllm"} 3.5 1000.062\n']


def test_series_that_came_later_are_found() -> None:
    target = ScrapeTarget('job="vllm"')
    target.samples(1000.0, PAGE)
    samples = target.samples(1005.0, PAGE.replace(b"plain 3.5\n", b'a_total{x="2"} 1.0\nplain 4.5\n'))
    assert samples[1:] == ['a_total{job="vllm",x="2"} 1.0 1005.000\n', 'plain{job="vllm"} 4.5 1005.000\n']


def test_each_cut_leaves_a_complete_file_with_what_came_since_the_last(tmp_path: Path) -> None:
    scrapes = Scrapes(tmp_path)
    scrapes.add_series(1.0, [('up{job="a"}', 1.0)])
    first = scrapes.cut()
    scrapes.add(2.0, ScrapeTarget('job="a"'), PAGE)
    second = scrapes.cut()
    scrapes.add_series(3.0, [('up{job="a"}', 0.0)])
    scrapes.discard()
    assert first.read_text() == 'up{job="a"} 1.0 1.000\n# EOF\n'
    assert second.read_text().splitlines()[-2:] == ['plain{job="a"} 3.5 2.000', "# EOF"]
    assert sorted(tmp_path.iterdir()) == [first, second]
