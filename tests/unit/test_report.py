"""The report: what is on the page, that nothing on it can fetch or run anything, and that a gap is never a zero."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report import charts
from lab_pipelines.report.chapters import headline
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import render_lab, render_pages, render_phase, render_year
from lab_pipelines.report.read import Report, read_report
from lab_pipelines.report.stage_table import columns, stage_cells, stage_markdown
from lab_pipelines.report.wording import GAP, decimals_for, duration, markdown_text, number, origin, printable, short
from lab_pipelines.report.write import write_report
from resources.warehouse import Warehouse
from tests.support.rows.results import finding_row
from tests.support.rows.runs import get_run, lab_run
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)> & |_*\x1b[31m"
ALLOWED_ADDRESSES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
"""Names of XML vocabularies; nothing fetches them."""


@dataclass
class Page(HTMLParser):
    """What a browser would make of the page, as far as these tests ask."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""
    open_: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def report_of(warehouse: Warehouse) -> Report:
    return read_report(warehouse, load_catalog(), now=NOW)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A modelled run, an older one of the same kind, and a measured one without a price."""
    warehouse = warehouse_in(tmp_path_factory.mktemp("filled"))
    old = lab_run(users=(1, 4), run_id="older-run", session_id="older")
    for row in old["load_stages"]:
        row["started_at"] -= timedelta(days=1)
    publish_run(warehouse, old)
    publish_run(warehouse, lab_run(users=(1, 4, 8, 16, 32)))
    publish_run(
        warehouse,
        lab_run(
            users=(1, 4),
            priced=False,
            run_id="measured-run",
            session_id="measured",
            engine="external",
            provenance="measured",
            time_scale=1.0,
            pace="full",
        ),
    )
    return report_of(warehouse)


@pytest.fixture(scope="module")
def page(filled: Report) -> str:
    """Of Phase 1, which L06 belongs to: its runs with their tables and pictures."""
    return render_phase(filled, 1)


@pytest.fixture(scope="module")
def year(filled: Report) -> str:
    return render_year(filled)


def all_pages(report: Report) -> str:
    return "\n".join(render_pages(report).values())


@pytest.fixture
def stage_rows(filled: Report) -> list[Any]:
    """The modelled run's stages, free to be changed."""
    section = next(s for s in filled.sections if s.overview["provenance"] == "modelled")
    return [dict(row) for row in section.stages]


def points(svg: str) -> list[tuple[float, float]]:
    """Where a chart's point marks are."""
    marks = re.search(r'class="mark-symbol role-mark[^"]*".*?</g>', svg, re.DOTALL)
    found = re.findall(r"translate\(([-0-9.e]+),([-0-9.e]+)\)", marks[0] if marks else "")
    return [(float(x), float(y)) for x, y in found]


def bars(svg: str) -> list[str]:
    """A chart's bars."""
    groups = re.findall(r'class="mark-rect role-mark[^"]*".*?</g>', svg, re.DOTALL)
    return [path for group in groups for path in re.findall(r"<path [^>]*>", group)]


def line_paths(svg: str) -> list[str]:
    groups = re.findall(r'class="mark-line role-mark[^"]*".*?</g>', svg, re.DOTALL)
    return [path for group in groups for path in re.findall(r' d="([^"]+)"', group)]


# What is on the page


def test_the_page_shows_the_newest_run_of_each_kind_and_not_the_older_one(page: str) -> None:
    assert "measured-run" in page
    assert "older-run" not in page


def test_every_table_and_picture_of_a_lab_says_where_its_numbers_come_from(filled: Report, page: str) -> None:
    document = parsed(page)
    pictures = [attributes["aria-label"] or "" for attributes in document.named("svg")]
    assert len(pictures) == 2 * 6 - 1, "six for each of two sessions; one of them has no price to draw"
    modelled, measured = (
        [label for label in pictures if f"{word} · {clock} · target local · pace {pace}" in label]
        for word, clock, pace in [("modelled", "5 stack s per wall s", "short"), ("measured", "real time", "full")]
    )
    assert len(modelled) == 6
    assert len(measured) == 5
    captions = re.findall(r"<caption>.*?</caption>", page, re.DOTALL)
    assert len(captions) == 2 * len(filled.sections) == 4, "the load step's numbers, and how sure they are"
    assert all("target local · pace" in caption for caption in captions)


def test_the_table_holds_every_stage_in_order(filled: Report, page: str) -> None:
    rows = re.findall(r'<tr><th scope="row">(\d+)</th>', page)
    assert rows == [str(stage["users"]) for section in filled.sections for stage in section.stages]


def test_totals_keep_measured_and_modelled_apart(filled: Report) -> None:
    totals = {total["provenance"]: total for total in filled.totals}
    assert totals["modelled"]["runs"] == 2
    assert totals["measured"]["runs"] == 1
    assert totals["measured"]["usd"] is None
    assert "no price known" in render_markdown(filled)


def test_labs_without_a_result_are_counted(year: str) -> None:
    assert year.count('<tbody class="none">') == 77
    assert "1 of the year&#39;s 78 labs has results" in year


def test_gaps_are_listed_with_their_reasons(page: str) -> None:
    text = " ".join(parsed(page).text.split())
    assert "gpu_power at 1, 4, 8, 16, 32 users: no such series" in text
    assert "usd whole session: no price is known for the machine" in text


def test_an_empty_warehouse_makes_a_page_that_says_so(tmp_path: Path) -> None:
    report = report_of(warehouse_in(tmp_path))
    assert "None of the year&#39;s 78 labs has results yet." in render_year(report)
    assert render_year(report).count('<tbody class="none">') == 78
    assert list(render_pages(report)) == ["year_in_numbers.html"]
    assert "None of the year's 78 labs has results yet." in render_markdown(report)


def test_verdicts_on_modelled_and_measured_numbers_are_counted_apart(filled: Report) -> None:
    assert headline(filled).endswith(
        "Claims tested on measured numbers: 1 confirmed. Claims tested on modelled numbers: 1 confirmed."
    )


def test_the_same_report_gives_the_same_page(filled: Report, page: str) -> None:
    assert re.sub(r"clip\d+", "clip", render_phase(filled, 1)) == re.sub(r"clip\d+", "clip", page)


# Nothing on the page fetches or runs anything, whatever the rows hold


@pytest.mark.parametrize("name", ["year_in_numbers.html", "phase-1.html", "L06.html"])
def test_a_page_needs_no_network_and_no_script(filled: Report, name: str) -> None:
    page = {**render_pages(filled), "L06.html": render_lab(filled, "L06")}[name]
    document = parsed(page)
    assert not {tag for tag, _ in document.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= ALLOWED_ADDRESSES
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert "@font-face" not in page


def test_text_from_rows_can_t_become_markup(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    tables = lab_run(users=(1, 4), engine=HOSTILE, pace=HOSTILE, variant=HOSTILE)
    for row in tables["metric_summaries"]:
        if row["status"] == "gap":
            row |= {"measure": HOSTILE, "gap_reason": HOSTILE}
    for row in tables["stack_sessions"]:
        row |= {"model": HOSTILE}
    tables["findings"] = [
        finding_row(claim=HOSTILE, reason=HOSTILE, method=HOSTILE, engine=HOSTILE, pace=HOSTILE, variant=HOSTILE)
    ]
    publish_run(warehouse, tables)
    report = report_of(warehouse)

    document = parsed(all_pages(report))
    tags = {tag for tag, _ in document.tags}
    assert not tags & {"script", "img"}
    assert not [name for _, attributes in document.tags for name in attributes if name.startswith("on")]
    assert document.text.count("<script>alert(1)</script>") > 10, "it is shown, as text"
    assert not re.search(r"(?<!\\)<(script|img)", render_markdown(report))


def test_every_picture_is_well_formed_and_no_two_share_an_id(page: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert svgs
    ids = [e.get("id") for svg in svgs for e in ET.fromstring(svg).iter() if e.get("id")]
    assert len(ids) == len(set(ids))


def test_pictures_follow_the_page_s_colours(page: str) -> None:
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
        assert colours <= {"none", "currentColor", "transparent"} | {c for c in colours if c.startswith("var(--")}
        texts = re.findall(r"<text [^>]*>", svg)
        assert texts
        assert all('fill="currentColor"' in text for text in texts)


# A gap is never a zero


def test_a_line_breaks_at_an_unknown_value(stage_rows: list[Any]) -> None:
    whole = charts.throughput(stage_rows).svg or ""
    stage_rows[2]["output_tokens_per_s"] = None
    broken = charts.throughput(stage_rows).svg or ""
    assert (len(points(whole)), len(points(broken))) == (5, 4)
    assert [path.count("M") for path in line_paths(whole)] == [1]
    assert [path.count("M") for path in line_paths(broken)] == [2]


def test_a_measured_zero_is_drawn_as_one(stage_rows: list[Any]) -> None:
    stage_rows[2]["output_tokens_per_s"] = 0.0
    assert len(points(charts.throughput(stage_rows).svg or "")) == 5


def test_a_chart_without_any_value_is_not_drawn(stage_rows: list[Any]) -> None:
    for row in stage_rows:
        row["usd_per_1k_tokens"] = None
    picture = charts.usd_per_1k_tokens(stage_rows)
    assert picture.svg is None
    assert picture.provenance.startswith("modelled")


def test_cost_without_a_price_is_drawn_as_node_time(filled: Report) -> None:
    section = next(s for s in filled.sections if s.overview["provenance"] == "measured")
    svg = charts.cost_split(section.cost, section.overview).svg or ""
    assert "no price known" in svg
    assert "node-hours" in svg
    assert "USD" not in svg


def test_an_engine_that_was_already_running_has_no_cold_start_to_draw(filled: Report) -> None:
    assert charts.cold_start([], filled.sections[0].overview).svg is None


def test_a_lone_stage_is_drawn_as_bars_of_its_quantiles_and_a_single_bar_not_at_all(stage_rows: list[Any]) -> None:
    pictures = charts.of_ladder(stage_rows[:1])
    assert [picture.title for picture in pictures] == [
        "Time to first token, s, at 1 user",
        "Inter-token latency, ms, at 1 user",
    ]
    assert [len(bars(picture.svg or "")) for picture in pictures] == [3, 2]
    assert (pictures[0].svg or "").count('fill="var(--page)"') == 2, "p95 and p99 of 24 requests"


def test_variants_of_a_lone_stage_stand_side_by_side(stage_rows: list[Any]) -> None:
    rows = [{**stage_rows[0], "variant": name} for name in ("wide", "narrow")]
    rows[1]["output_tokens_per_s"] = None
    svg = charts.throughput(rows).svg or ""
    assert len(bars(svg)) == 1
    assert "narrow" in svg and f">{GAP}<" in svg, "what is not known has a place, and no bar"


def test_a_quantile_of_too_few_requests_is_drawn_hollow(stage_rows: list[Any]) -> None:
    for row in stage_rows:
        row |= {"ttft_p95_supported": True, "ttft_p99_supported": row["users"] != 4}
    svg = charts.ttft(stage_rows).svg or ""
    assert svg.count('fill="var(--page)"') == 1


# The table


def test_the_markdown_table_has_a_line_per_stage_under_its_provenance(stage_rows: list[Any]) -> None:
    lines = stage_markdown(stage_rows).splitlines()
    assert "modelled · 5 stack s per wall s · target local · pace short" in lines[0]
    assert lines[2].startswith("| users | requests | output tokens/s | TTFT p50, s |")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(stage_rows)
    assert {line.count("|") for line in table} == {len(columns(stage_rows)) + 1}


def test_stages_of_different_sessions_never_share_a_markdown_table(filled: Report) -> None:
    text = stage_markdown([row for section in filled.sections for row in section.stages])
    assert text.count("| users |") == 2
    assert text.count("target local") == 2


def test_load_steps_stand_in_the_order_in_which_they_were_applied(stage_rows: list[Any]) -> None:
    later = [{**row, "step": "a-later-one", "started_at": row["started_at"] + timedelta(hours=1)} for row in stage_rows]
    text = stage_markdown([*later, *stage_rows])
    assert text.index("step ramp") < text.index("step a-later-one")


def test_no_stages_make_a_sentence_instead_of_a_table() -> None:
    assert stage_markdown([]) == "No load stage has been recorded yet."


def test_the_table_marks_rough_quantiles_and_gaps_and_explains_both(stage_rows: list[Any]) -> None:
    stage_rows[0] |= {"queue_depth": None, "ttft_p95_s": 1.5, "ttft_p95_supported": False}
    stage_rows[1] |= {"ttft_p95_supported": True}
    cells = dict(zip([c.key for c in columns(stage_rows)], zip(*stage_cells(stage_rows), strict=True), strict=True))
    assert cells["queue_depth"][0].gap
    assert [str(cell)[0] for cell in cells["ttft_p95_s"][:2]] == ["≈", "0"]
    text = stage_markdown(stage_rows)
    assert "a p95 needs 72 independent ones, a p99 368" in text
    assert "not known" in text


def test_a_column_keeps_one_number_of_decimals(stage_rows: list[Any]) -> None:
    for row in stage_rows:
        row["ttft_p99_s"] = row["users"] * 1.0
    shown = [line[5].text for line in stage_cells(stage_rows)]
    assert shown == ["1.000", "4.000", "8.000", "16.000", "32.000"], "as many as p50 beside it needs"


# Loads without users or tokens


def test_a_lab_of_plain_gets_at_rates_has_columns_pictures_and_facts_of_its_own(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    publish_run(warehouse, get_run(offered=(2.0, 8.0)))
    report = report_of(warehouse)
    html, text = render_phase(report, 1), render_markdown(report)
    assert "| offered requests/s | requests | served requests/s | failed, % | latency p50, ms |" in text
    assert "| 2.00 | 40 | 2.00 | 5.0 | 12.0 |" in text
    assert "TTFT" not in text
    assert "at 8/s: no such series" in text
    assert "no engine" in text
    titles = [attributes["aria-label"] or "" for attributes in parsed(html).named("svg")]
    assert [title.split(".")[0] for title in titles[:2]] == [
        "Requests served, requests/s",
        "Latency of a whole answer, ms",
    ]
    assert len(titles) == 3, "and what it cost; there is no cold start to draw"
    assert "Nothing to draw" not in html
    said = parsed(html).text
    assert "8.00 requests/s" in said and "most GETs served, at 8/s" in said
    assert "12.0 ms → 18.0 ms" in said and "median latency of a GET, at 2/s → 8/s" in said


@pytest.mark.parametrize(
    ("columns", "header", "axis"),
    [
        ({"profile": "rate", "users": None}, "offered requests/s", "offered requests per second"),
        ({"profile": "burst"}, "burst of", "requests at once"),
        ({"profile": "constant"}, "users", "concurrent users"),
    ],
)
def test_completions_stand_against_what_was_applied(
    stage_rows: list[Any], columns: dict[str, Any], header: str, axis: str
) -> None:
    rows = [{**row, "offered_per_s": row["users"] / 4, **columns} for row in stage_rows[:2]]
    assert stage_markdown(rows).splitlines()[2].startswith(f"| {header} | requests |")
    svg = charts.throughput(rows).svg or ""
    assert axis in svg
    assert len(points(svg)) == 2


# Words and numbers


def test_a_large_number_is_the_same_in_a_terminal() -> None:
    assert printable(number(1234567, 0)) == number(1234567, 0)
    assert printable("a\x1b[31mb") != "a\x1b[31mb"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (0, "0"), (0.000243, "0.000243"), (12.345, "12.3"), (1234567, "1 234 567")],
)
def test_a_number_on_its_own_has_three_significant_digits(value: float | None, text: str) -> None:
    assert short(value).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


def test_decimals_follow_the_smallest_value_that_is_not_zero() -> None:
    assert decimals_for([0, None, 0.0123, 40], significant=3, at_most=6) == 4
    assert decimals_for([], significant=3, at_most=6) == 2
    assert decimals_for([5000], significant=3, at_most=6) == 0


def test_a_duration_is_said_as_people_say_it() -> None:
    assert duration(42.0) == "42.0 s"
    assert duration(119.96) == "120 s"
    assert duration(719.6) == "12 min 0 s"


def test_a_clock_that_is_not_the_wall_s_is_named() -> None:
    assert origin({"provenance": "measured", "time_scale": 1.0}) == "measured · real time"
    assert origin({"provenance": "modelled", "time_scale": 2.5}) == "modelled · 2.5 stack s per wall s"


def test_text_stays_text_in_markdown() -> None:
    assert markdown_text("a|b\n<i>_c_") == "a\\|b \\<i\\>\\_c\\_"


def test_thousands_are_grouped_without_a_break() -> None:
    assert number(12345.6, 1) == "12\N{NARROW NO-BREAK SPACE}345.6"


# Files


def test_writing_again_replaces_the_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    before = write_report(warehouse, load_catalog(), tmp_path / "report")
    publish_run(warehouse, lab_run(users=(1,)))
    after = write_report(warehouse, load_catalog(), tmp_path / "report")
    assert (before.labs_with_results, after.labs_with_results, after.labs, after.stages) == (0, 1, 78, 1)
    # `pictures` keeps what was drawn, for the next time.
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert files == {"year_in_numbers.html", "year_in_numbers.md", "phase-1.html", "pictures"}
    assert [path.name for path in after.phases] == ["phase-1.html"]
    assert "1 of the year&#39;s 78 labs" in after.html.read_text(encoding="utf-8")
    assert after.markdown.read_text(encoding="utf-8") == after.summary


def test_a_report_that_can_t_be_made_leaves_the_former_one(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    files = write_report(warehouse, load_catalog(), tmp_path / "report")
    former = files.html.read_bytes()
    foreign = Path(warehouse.data_dir) / "lake" / "requests" / "target=local" / "lab=L06" / "x.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"not Parquet")
    with pytest.raises(RuntimeError, match=r"x\.parquet"):
        write_report(warehouse, load_catalog(), tmp_path / "report")
    assert files.html.read_bytes() == former
