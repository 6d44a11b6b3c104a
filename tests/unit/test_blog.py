"""The posts: every number comes from a query, prose follows the verdicts, and a gap is seen."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jinja2 import nodes
from typer.testing import CliRunner, Result

from lab_pipelines.blog.answers import Answer, Questions, questions
from lab_pipelines.blog.render import Rendered, render
from lab_pipelines.blog.template import (
    ENVIRONMENT,
    POSTS,
    QUERIES,
    Asked,
    Template,
    TemplateError,
    load_post,
    load_posts,
    parameters_of,
    question_of,
)
from lab_pipelines.blog.write import write_post
from lab_pipelines.catalog.calendar import load_calendar
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import LabSpec
from lab_pipelines.cli import app
from lab_pipelines.deployment import Target
from lab_pipelines.report.wording import GAP, VERDICTS
from resources.snapshot import open_snapshot
from resources.warehouse import Warehouse
from tests.support.command_line import own_environment, refused
from tests.support.rows.results import finding_row
from tests.support.warehouses import warehouse_in
from tests.support.year import findings, lab_tables, publish_findings, publish_year

CATALOG, CALENDAR = load_catalog(), load_calendar()
ALL = load_posts(CATALOG, CALENDAR)
COMPLETE = list({lab.id: lab for post in ALL for lab in post.labs.values() if isinstance(lab, LabSpec)}.values())
NAMES = re.compile(r"\bL[0-9]{2}\b|\b(?:T4|A100|fp16|p50|p95|p99|1K)\b|Phi-3-mini|^[0-9]\. \*\*", flags=re.MULTILINE)
"""Digits that are no result: labs, machines, formats, quantiles, and the numbers of a list."""
HOSTILE = "</svg><script>alert(1)</script> | **[^1] `x` ![i](javascript:x)\x1b[31m\nnew line"

per_post = pytest.mark.parametrize("post", ALL, ids=lambda post: post.slug)


def empty(post: Template) -> dict[Asked, Answer]:
    return {asked: Answer("SELECT 1", "?", []) for asked in post.asked}


def ask(warehouse: Warehouse, post: Template, target: Target) -> dict[Asked, Answer]:
    with questions(warehouse) as asked:
        return asked.ask(post, target)


def prose(rendered: Rendered) -> str:
    """What a person wrote of the post: no head, no footnotes, nothing that a placeholder said."""
    text = rendered.text.split("\n> Draft", 1)[1].partition("\n")[2]
    text = re.sub(r"^\[\^[0-9]+\]: .*$", "", text, flags=re.MULTILINE)
    for said in sorted(rendered.said, key=len, reverse=True):
        text = text.replace(said, "")
    return text


def numbers_in(text: str) -> list[str]:
    return re.findall(r"\S*[0-9]\S*", NAMES.sub("", text))


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Warehouse]:
    """By verdict, a year in which every claim ended that way."""
    undecided = warehouse_in(tmp_path_factory.mktemp("undecided"))
    publish_year(undecided, COMPLETE)
    found = {}
    for verdict in VERDICTS:
        found[verdict] = warehouse_in(tmp_path_factory.mktemp(verdict))
        shutil.copytree(undecided.data_dir, found[verdict].data_dir)
        publish_findings(found[verdict], COMPLETE, verdict)
    return found


Filled = Callable[[Template, str], Rendered]


@pytest.fixture(scope="module")
def filled(years: Mapping[str, Warehouse]) -> Iterator[Filled]:
    """A post of the year in which every claim ended in one verdict."""
    with ExitStack() as stack:
        asked = {verdict: stack.enter_context(questions(warehouse)) for verdict, warehouse in years.items()}
        yield from _filled(asked)


def _filled(asked: Mapping[str, Questions]) -> Iterator[Filled]:

    @cache
    def filled(slug: str, verdict: str) -> Rendered:
        post = next(post for post in ALL if post.slug == slug)
        return render(post, asked[verdict].ask(post, "rehearsal"), "rehearsal")

    yield lambda post, verdict: filled(post.slug, verdict)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(body: str, labs: str = "[L06, L11, L29]", front: str = "number: 2") -> Path:
        path = tmp_path / "post.md"
        path.write_text(f"---\n{front}\nlabs: {labs}\n---\n{body}\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(write: Callable[..., Path]) -> Callable[..., Template]:
    return lambda *arguments, **named: load_post(write(*arguments, **named), CATALOG, CALENDAR)


# The posts


def test_the_calendar_has_ten_posts_and_each_has_a_template() -> None:
    assert [post.post.number for post in ALL] == list(range(1, 11))
    for post in ALL:
        assert post.path.name.startswith(f"{post.post.number:02}-")
        assert post.asked or not any(isinstance(lab, LabSpec) for lab in post.labs.values())


@per_post
def test_no_template_has_a_number_of_its_own(post: Template) -> None:
    tree = ENVIRONMENT.parse(post.source)
    assert numbers_in("".join(text.data for text in tree.find_all(nodes.TemplateData))) == []


def test_a_number_that_somebody_wrote_into_a_template_is_found(load: Callable[..., Template]) -> None:
    post = load("TTFT of L11 on a T4 falls by 38 % at p95.")
    assert numbers_in("".join(text.data for text in ENVIRONMENT.parse(post.source).find_all(nodes.TemplateData))) == [
        "38"
    ]
    assert numbers_in(prose(render(post, {}, "local"))) == ["38"]


@per_post
@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_number_of_a_post_comes_from_a_query_or_the_catalogue(
    post: Template, verdict: str, filled: Filled
) -> None:
    rendered = filled(post, verdict)
    assert numbers_in(prose(rendered)) == []
    for number in range(1, len(rendered.notes) + 1):
        assert f"[^{number}]" in rendered.text
        assert f"\n[^{number}]: " in rendered.text
    assert ("(modelled" in rendered.text or "; modelled)" in rendered.text) == bool(rendered.notes)


@per_post
def test_without_rows_a_post_has_gaps_and_no_number(post: Template) -> None:
    rendered = render(post, empty(post), "rehearsal")
    assert rendered.notes == []
    assert numbers_in(prose(rendered)) == []
    assert len(rendered.gaps) >= max(sum(asked.kind == "finding" for asked in post.asked), 1)
    for gap in rendered.gaps:
        assert re.search(r"`labs (run|show) L[0-9]{2}|^L[0-9]{2}: |none of this post's labs", gap), gap
    assert not re.search(r"\*\*(confirmed|refuted|inconclusive)\*\*", rendered.text)


@per_post
def test_prose_follows_the_verdicts(post: Template, filled: Filled) -> None:
    """Of every finding exactly the text of its verdict is there, for each of the three."""
    texts = verdict_texts(post)
    for verdict in VERDICTS:
        rendered = filled(post, verdict).text
        for finding, by_verdict in texts.items():
            for other, text in by_verdict.items():
                assert (text in rendered) == (other == verdict), (finding, other)
        for other in VERDICTS:
            assert (f"**{other}**" in rendered) == (other == verdict and any(a.name == "finding" for a in post.asked))


def verdict_texts(post: Template) -> dict[str, dict[str, str]]:
    """By finding and verdict, the longest stretch of its text that has no placeholder in it."""
    found: dict[str, dict[str, str]] = {}
    for test in ENVIRONMENT.parse(post.source).find_all(nodes.If):
        branches = [(test.test, test.body), *((branch.test, branch.body) for branch in test.elif_)]
        assert not test.else_
        for condition, body in branches:
            call = condition.find(nodes.Call)
            assert call is not None
            finding = ".".join(str(argument.as_const()) for argument in call.args)
            word = next(condition.find_all(nodes.Operand)).expr.as_const()
            texts = [text.data.strip() for node in body for text in node.find_all(nodes.TemplateData)]
            found.setdefault(finding, {})[word] = max(texts, key=len)
    return {finding: texts for finding, texts in found.items() if len(texts) == len(VERDICTS)}


def test_every_finding_of_a_post_is_held_to_its_three_texts() -> None:
    asked = {
        str(".".join(str(value) for _, value in one.params))
        for post in ALL
        for one in post.asked
        if one.name == "finding"
    }
    held = {finding for post in ALL for finding in verdict_texts(post)}
    of_results = {
        f"{lab}.{finding.id}"
        for post in ALL
        for lab, spec in post.labs.items()
        if isinstance(spec, LabSpec)
        for finding in spec.findings
    }
    assert len(held) > 40
    assert held <= asked <= held | of_results


# The questions


@pytest.mark.parametrize("path", sorted(QUERIES.glob("*.sql")), ids=lambda path: path.stem)
def test_a_question_says_what_it_asks_and_asks_one_target(path: Path) -> None:
    sql = path.read_text(encoding="utf-8")
    assert re.match(r"[A-Z][^;]*\?", question_of(sql))
    assert "target" in parameters_of(sql)
    assert all(len(line) <= 120 for line in sql.splitlines())
    assert any(path.stem == asked.name for post in ALL for asked in post.asked), "no post asks it"


@per_post
def test_the_file_beside_a_number_gives_the_number(
    post: Template, years: Mapping[str, Warehouse], filled: Filled, tmp_path: Path
) -> None:
    warehouse, rendered = years["refuted"], filled(post, "refuted")
    path = write_post(post, rendered, tmp_path)
    links = re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8"))
    assert len([link for link in links if link.endswith(".sql")]) == len(rendered.notes)
    assert all((tmp_path / link).is_file() for link in links)
    with open_snapshot(warehouse.snapshot_path) as connection:
        for note in rendered.notes:
            cursor = connection.execute((tmp_path / post.slug / note.file).read_text(encoding="utf-8"))
            names = [column[0] for column in cursor.description or []]
            again = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            assert len(again) == len(note.answer.rows)
            for row, shown in zip(again, note.answer.rows, strict=True):
                assert row.keys() == shown.keys()
                for name, value in row.items():
                    # Threads add up in any order.
                    assert shown[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_number_that_rows_bring_is_the_one_that_is_shown(
    load: Callable[..., Template], years: Mapping[str, Warehouse]
) -> None:
    post = load("{{ number('stage', lab='L11', variant='gmu-0.95', step='ramp', load=8, quantity='ttft_p50_s') }}")
    [answer] = (answers := ask(years["confirmed"], post, "rehearsal")).values()
    # The rows' maker: 0.3 + 0.02 s for each of 8 users.
    assert answer.rows[0]["value"] == pytest.approx(0.46)
    assert "0.460 s (95 % interval 0.437 s to 0.483 s; modelled)[^1]" in render(post, answers, "rehearsal").text


# How numbers read


def answered(post: Template, rows: list[dict[str, Any]]) -> Rendered:
    """The post's one question answered with `rows`."""
    origin: dict[str, Any] = {
        name: finding_row()[name] for name in ("lab", "pace", "time_scale", "engine", "run_id", "recorded_at")
    }
    origin |= {"target": "local", "provenance": "modelled"}
    return render(post, {post.asked[0]: Answer("SELECT 1", "Which?", [origin | row for row in rows])}, "local")


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"value": 1234.6, "unit": "tokens/s"}, "1\N{NARROW NO-BREAK SPACE}235 tokens/s (modelled)[^1]"),
        ({"value": 0.5, "unit": "share", "provenance": "measured"}, "50 % (measured)[^1]"),
        ({"value": 2.0, "unit": "s", "low": 1.5, "high": 2.5}, "2.00 s (95 % interval 1.50 s to 2.50 s; modelled)[^1]"),
        ({"value": 2.0, "unit": "s", "low": None, "high": None}, "2.00 s (modelled)[^1]"),
        ({"value": 0, "unit": "count"}, "0 (modelled)[^1]"),
        ({"value": "out of memory", "unit": "text"}, '"out of memory" (modelled)[^1]'),
        (
            {"value": None, "unit": "s", "gap": "3 sessions have no price"},
            r"**\[no value: 3 sessions have no price\]**",
        ),
    ],
)
def test_a_number_says_unit_interval_and_whether_it_was_measured(
    row: dict[str, Any], shown: str, load: Callable[..., Template]
) -> None:
    rendered = answered(load("It is {{ number('year_usd') }}."), [row])
    assert f"It is {shown}." in rendered.text


def test_a_footnote_leads_to_the_query_the_run_and_the_day(load: Callable[..., Template]) -> None:
    rendered = answered(load("{{ number('year_usd') }}"), [{"value": 1.0, "unit": "USD"}])
    [note] = re.findall(r"^\[\^1\]: .*$", rendered.text, flags=re.MULTILINE)
    assert "[01-year_usd.sql](post/01-year_usd.sql)" in note
    for said in ("Modelled", "target local", finding_row()["run_id"], "recorded 2026-03-02 09:10 UTC"):
        assert said in note


def test_a_table_of_measured_and_modelled_rows_says_which_is_which(load: Callable[..., Template]) -> None:
    post = load("{{ table('money_by_part') }}")
    rows = [{"USD": 1.0}, {"USD": None, "provenance": "measured"}]
    text = answered(post, rows).text
    assert "| USD | measured or modelled |" in text
    assert f"| 1.00 | modelled |\n| {GAP} | measured |" in text
    assert "measured or modelled" not in answered(post, rows[:1]).text


def test_what_lies_outside_of_the_models_range_says_so(load: Callable[..., Template]) -> None:
    row = {"value": 1.0, "unit": "USD", "model_range": "outside: sequences of 3072 tokens"}
    text = answered(load("{{ number('year_usd') }}"), [row]).text
    assert "compared with measurements: sequences of 3072 tokens." in text
    assert "1 lie outside of the range" in text


def test_what_comes_from_rows_is_text_and_nothing_else(tmp_path: Path, load: Callable[..., Template]) -> None:
    warehouse = warehouse_in(tmp_path)
    lab = CATALOG.spec("L15")
    hostile = {"claim": HOSTILE, "reason": HOSTILE, "method": HOSTILE}
    tables = {**lab_tables(lab), "findings": [row | hostile for row in findings(lab, "inconclusive")]}
    tables["stack_sessions"] = [
        row | {"refusal": HOSTILE if row["refusal"] else None} for row in tables["stack_sessions"]
    ]
    for table, rows in tables.items():
        warehouse.publish(table, rows, target="rehearsal", lab="L15", run_id=rows[0]["run_id"])
    post = load(
        "{{ results('L15') }}\n\n{{ table('verdicts', verdict='inconclusive') }}\n\n"
        "{{ number('refusal', lab='L15', variant='fp16') }}",
        labs="[L15]",
    )
    text = render(post, ask(warehouse, post, "rehearsal"), "rehearsal").text
    assert "\x1b" not in text
    assert "<script" not in re.sub(r"\\<", "", text)
    assert not re.search(r"(?<!\\)!?(?<!\\)\[i(?<!\\)\]", text)
    assert not re.search(r"(?<!\\)`x", text)
    assert "\nnew line" not in text
    cells = {line.count("|") - line.count(r"\|") for line in text.splitlines() if line.startswith("|")}
    assert cells == {6}


# Templates that are wrong

BEGIN = "{% finding 'L11', 'x' %}{% confirmed %}"
REFUTED, OPEN, END = "{% refuted %}", "{% inconclusive %}", "{% endfinding %}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{{ number('no_such') }}", r"post\.md:5: number\('no_such'\): there is no blog/queries/no_such\.sql; there"),
        ("\n{{ number('stage', lab='L11') }}", r":6: number\('stage'\): the query takes lab, load, quantity, "),
        ("{{ table('year_usd', lab='L11') }}", r"table\('year_usd'\): the query takes nothing"),
        ("{{ number('measure', lab='L12', variant='x', measure='y', unit='s') }}", "L12 is none of the post's labs"),
        ("{{ number(name) }}", ":5: number: write its arguments out"),
        ("{{ number() }}", ":5: number: it takes name"),
        ("{{ figure('L11') }}", "there is no such placeholder; there are: number, picture, question, results, table"),
        ("{{ picture('L11', 'nothing') }}", "L11 has no figure 'nothing'; it has: throughput-by-users"),
        ("{{ picture('L29', 'nothing') }}", r"L29 is an outline and has none yet; write \{\{ results\('L29'\) \}\}"),
        (f"{BEGIN}a{REFUTED}b{OPEN}c{END}", "L11 has no finding 'x'; it has: more-cache"),
        (f"{BEGIN}a{REFUTED}b{END}", ":5: syntax: finding: expected {% inconclusive %}"),
        (f"{BEGIN}a{REFUTED} {OPEN}c{END}", "refuted has no text"),
        (f"{{% finding 'L11', 'x' %}}a{{% confirmed %}}a{REFUTED}b{OPEN}c{END}", "no text may stand before"),
        (f"{{% finding 'L11' %}}{END}", ":5: syntax: expected token"),
        ("{{ spec.L11.title", ":5: syntax: "),
    ],
)  # fmt: skip
def test_a_wrong_template_is_refused_with_file_line_and_remedy(
    body: str, message: str, load: Callable[..., Template]
) -> None:
    with pytest.raises(TemplateError, match=message) as refusal:
        load(body)
    assert re.match(r".*post\.md:[0-9]+: ", str(refusal.value))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("\n\n{{ spec.L11.titel }}", r"post\.md:7: \{\{ spec\.L11\.titel \}\}: .*has no attribute 'titel'"),
        ("{{ spec.L13.title }}", r"post\.md:5: .*has no attribute 'L13'"),
    ],
)
def test_what_the_catalogue_lacks_is_refused_with_file_and_line(
    body: str, message: str, load: Callable[..., Template]
) -> None:
    with pytest.raises(TemplateError, match=message):
        render(load(body), {}, "local")


@pytest.mark.parametrize(
    ("front", "labs", "message"),
    [
        ("number: 11", "[L06]", "the calendar has posts 1 to 10"),
        ("number: two", "[L06]", "number: Input should be a valid integer"),
        ("number: 2\ntitle: x", "[L06]", "title: Extra inputs"),
        ("number: 2", "[L99]", "there is no lab 'L99'"),
        ("number: 2", "[", "front matter: "),
    ],
)
def test_a_wrong_front_matter_is_refused(front: str, labs: str, message: str, load: Callable[..., Template]) -> None:
    with pytest.raises(TemplateError, match=rf"post\.md:1: .*{message}"):
        load("text", front=front, labs=labs)


@pytest.mark.parametrize(
    ("content", "message"), [(b"# Title\n", "begin the file with ---"), (b"\xff", "can't be read")]
)
def test_a_file_that_is_no_template_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "post.md"
    path.write_bytes(content)
    with pytest.raises(TemplateError, match=message):
        load_post(path, CATALOG, CALENDAR)


def test_a_post_of_the_calendar_without_a_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"has templates of the posts \(none\); the calendar has 1, 2"):
        load_posts(CATALOG, CALENDAR, tmp_path)


def test_an_answer_that_does_not_say_where_it_is_from_is_refused(
    tmp_path: Path, load: Callable[..., Template], monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = warehouse_in(tmp_path)
    post = load("{{ number('year_usd') }}")
    origin = "1 AS target, 1 AS provenance, 1 AS run_id, 1 AS recorded_at"
    wrong = {
        "SELECT 1 AS value": "add the columns target, provenance, run_id, recorded_at",
        f"SELECT 1 AS value, {origin}": "a number has the columns unit",
        f"SELECT 1 AS value, 'm' AS unit, {origin}": "unit m: expected",
        f"SELECT 1 AS value, 's' AS unit, {origin}, 1 AS more": "a number has no column more",
        f"SELECT 1 AS value, 's' AS unit, {origin} FROM range(2)": "one row is wanted and 2 came",
        "SELECT nothing": "Binder Error",
    }
    for sql, message in wrong.items():
        (tmp_path / "year_usd.sql").write_text(sql)
        monkeypatch.setattr(Asked, "path", tmp_path / "year_usd.sql")
        with pytest.raises(TemplateError, match=message):
            ask(warehouse, post, "local")


# Files


def test_a_post_is_replaced_with_all_that_belongs_to_it(tmp_path: Path, filled: Filled) -> None:
    post = ALL[1]
    rendered = filled(post, "confirmed")
    write_post(post, rendered, tmp_path)
    before = sorted(path.name for path in (tmp_path / post.slug).iterdir())
    assert [name for name in before if name.endswith(".svg")]
    write_post(post, replace(rendered, notes=rendered.notes[:1]), tmp_path)
    assert [path.name for path in (tmp_path / post.slug).iterdir()] == [rendered.notes[0].file]


def test_a_picture_stands_alone(years: Mapping[str, Warehouse], load: Callable[..., Template], tmp_path: Path) -> None:
    post = load(
        "{{ picture('L11', 'throughput-by-users') }} {{ picture('L06', 'cold-start') }} {{ picture('L06', 'ttft') }}"
    )
    rendered = render(post, ask(years["confirmed"], post, "rehearsal"), "rehearsal")
    write_post(post, rendered, tmp_path)
    pictures = sorted((tmp_path / post.slug).glob("*.svg"))
    assert len(pictures) == 3
    for picture in pictures:
        assert f"({post.slug}/{picture.name})" in rendered.text
        svg = picture.read_text(encoding="utf-8")
        ET.fromstring(svg)
        assert set(re.findall(r"var\((--[a-z0-9-]+)\)", svg)) <= set(re.findall(r"(--[a-z0-9-]+):", svg))
        assert not re.search(r"(?:href|src|url)[=(]", svg)


def test_rendering_is_pure(years: Mapping[str, Warehouse]) -> None:
    answers = ask(years["confirmed"], ALL[9], "rehearsal")
    assert render(ALL[9], answers, "rehearsal") == render(ALL[9], answers, "rehearsal")


# labs blog


@pytest.fixture
def labs(years: Mapping[str, Warehouse], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    own_environment(monkeypatch, years["refuted"].data_dir)
    return lambda *arguments: CliRunner().invoke(app, ["blog", *arguments])


def test_the_list_says_what_each_post_has_and_lacks(labs: Callable[..., Result]) -> None:
    found = json.loads(labs("--target", "rehearsal", "--json").stdout)
    assert [one["number"] for one in found] == list(range(1, 11))
    by_number = {one["number"]: one for one in found}
    assert by_number[2]["modelled"] == len(ALL[1].asked)
    assert (by_number[2]["measured"], by_number[2]["missing"]) == (0, 0)
    assert (by_number[4]["modelled"], by_number[4]["missing"] > 10) == (0, True)


def test_on_another_target_the_same_posts_are_gaps(labs: Callable[..., Result]) -> None:
    [one] = json.loads(labs("--target", "aks", "--json", "--post", "2").stdout)
    assert (one["measured"], one["modelled"]) == (0, 0)
    assert "not measured on target aks yet: `labs run L11 --target aks`" in one["gaps"]


def test_a_draft_is_written_where_one_asks_for_it(labs: Callable[..., Result], tmp_path: Path) -> None:
    result = labs("--post", "2", "--post", "9", "--target", "rehearsal", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "02-inside-the-kv-cache.md").is_file()
    assert (tmp_path / "09-gpu-cost-attribution.md").is_file()
    assert str(tmp_path / "09-gpu-cost-attribution.md") in result.stdout
    assert "gap: not measured: L73 is an outline" in result.stdout


def test_a_post_that_the_calendar_lacks_is_refused(labs: Callable[..., Result]) -> None:
    assert "--post 11: the calendar has posts 1 to 10" in refused(labs("--post", "11"), 2)


def test_a_folder_that_cant_be_written_to_is_one_line(labs: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = labs("--post", "4", "--target", "rehearsal", "--out", str(tmp_path / "file"))
    message = refused(result, 1)
    assert (
        message.startswith(f"labs: {tmp_path / 'file'}") and "can't be written: " in message and "--out DIR" in message
    )


def test_an_empty_warehouse_makes_posts_of_gaps_however_often_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_environment(monkeypatch, tmp_path)
    result = CliRunner().invoke(app, ["blog", "--json"])
    assert result.exit_code == 0, result.output
    assert all((one["measured"], one["modelled"]) == (0, 0) and one["missing"] for one in json.loads(result.stdout))
    table = CliRunner().invoke(app, ["blog"]).stdout
    assert "Inside the KV Cache" in table
    assert "L29 is an outline" in table


def test_templates_lie_where_the_command_looks() -> None:
    assert all(post.path.parent == POSTS for post in ALL)
