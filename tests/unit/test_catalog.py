"""Every lab of the year is what the curriculum says, or its erratum says why not; the calendar keeps its rules."""

from __future__ import annotations

import csv
import re
from collections import Counter
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from lab_pipelines.catalog.calendar import Calendar, load_calendar
from lab_pipelines.catalog.identity import Erratum, Identity
from lab_pipelines.catalog.loader import CATALOG_DIR, SpecError, load_catalog, read_model
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.catalog.spec import LabSpec, Outline

CURRICULUM = Path(__file__).parents[1] / "data" / "curriculum-labs.csv"
A_PART_OF_THE_CURRICULUM = re.compile(r"\b(curriculum|schedule|heading|summary|detail|table|week)s?\b|\blab's own\b")


def facts() -> dict[str, dict[str, str]]:
    with CURRICULUM.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def labs() -> list[LabSpec | Outline]:
    return load_catalog().labs()


def outlines() -> list[Outline]:
    return [lab for lab in labs() if isinstance(lab, Outline)]


def all_errata() -> list[tuple[str, Erratum]]:
    of_labs = [(lab.id, erratum) for lab in labs() for erratum in lab.errata]
    return of_labs + [("calendar", erratum) for erratum in load_calendar().errata]


def prose(lab: Identity) -> list[str]:
    said = [lab.title, lab.question, *lab.concepts]
    for erratum in lab.errata:
        said += [erratum.letter, erratum.today, erratum.source]
    return [*said, *lab.records, *lab.missing] if isinstance(lab, Outline) else said


# The labs


def test_the_year_has_the_78_labs_of_the_curriculum_each_in_its_week_with_its_name_and_sessions() -> None:
    assert load_catalog().ids == tuple(f"L{n:02}" for n in range(1, 79))
    found = [(lab.id, lab.title, lab.week, lab.sessions) for lab in labs()]
    assert found == [(i, f["title"], int(f["week"]), int(f["sessions"])) for i, f in facts().items()]
    assert sum(lab.sessions for lab in labs()) == 110


def test_titles_and_namespaces_are_unique() -> None:
    for values in ([lab.title for lab in labs()], [lab.namespace for lab in labs()]):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_chaos_finops_and_consolidation_are_the_labs_that_the_curriculum_marks() -> None:
    for lab in labs():
        marked = set(filter(None, facts()[lab.id]["kinds"].split("+")))
        assert set(lab.kinds) - {"integration"} == marked, lab.id
    chaos = {lab.id for lab in labs() if "chaos" in lab.kinds}
    assert chaos == {"L65", "L66", "L67", "L68", "L69", "L70", "L74"}
    assert {lab.id for lab in labs() if "finops" in lab.kinds} == {"L71", "L72", "L73", "L74", "L75"}


def test_a_lab_lies_in_its_phase_and_no_lab_but_the_last_in_a_consolidation_week() -> None:
    calendar = load_calendar()
    for lab in labs():
        phase, week = calendar.phase(lab.phase), calendar.week(lab.week)
        assert phase.first_week <= lab.week <= phase.last_week, lab.id
        assert (week.consolidation is not None) == (lab.id == "L78"), lab.id


def test_a_lab_runs_on_the_gpus_that_the_curriculum_names_or_an_erratum_says_why_not() -> None:
    prices = load_prices()
    named = {"": set(), "T4": {("T4", 1)}, "2xT4": {("T4", 2)}, "A100": {("A100-80G", 1)}}
    named["T4+A100"] = named["T4"] | named["A100"]
    for lab in labs():
        used = {(prices.sku(nodes.sku).gpu, nodes.gpus) for nodes in lab.nodes if nodes.gpus}
        told = any("GPU" in erratum.letter for erratum in lab.errata)
        assert used == named[facts()[lab.id]["gpu"]] or told, f"{lab.id} uses {used}"


def test_a_node_with_gpus_says_how_many_of_them_the_lab_uses() -> None:
    prices = load_prices()
    for lab in labs():
        for nodes in lab.nodes:
            assert (prices.sku(nodes.sku).gpu is None) == (nodes.gpus == 0), f"{lab.id}: {nodes.sku}"


def test_only_the_last_lab_needs_no_node() -> None:
    assert [lab.id for lab in labs() if not lab.nodes] == ["L78"]


def test_what_a_lab_builds_on_exists() -> None:
    known = set(load_catalog().ids)
    for lab in labs():
        assert set(lab.builds_on) <= known, lab.id
        assert len(set(lab.builds_on)) == len(lab.builds_on), lab.id


def test_every_lab_asks_a_question() -> None:
    for lab in labs():
        assert lab.question.endswith("?"), lab.id
        assert len(lab.question) > 60, lab.id


def test_no_lab_is_a_placeholder() -> None:
    placeholder = re.compile(r"to be written|\bTODO\b|\bTBD\b|\bits spec: stack, steps", re.IGNORECASE)
    assert [lab.id for lab in labs() if any(placeholder.search(text) for text in prose(lab))] == []


def test_an_outline_says_what_is_missing_and_what_it_will_record() -> None:
    for lab in outlines():
        assert lab.missing, lab.id
        assert len(set(lab.missing)) == len(lab.missing), lab.id
        assert lab.records, lab.id


def test_cost_labels_are_labels_that_kubernetes_and_azure_take() -> None:
    label = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
    for lab in labs():
        assert lab.cost_labels.keys() == {"cost-center", "lab", "phase"}
        assert all(label.fullmatch(value) for value in lab.cost_labels.values()), lab.id
    assert load_catalog().lab("L76").namespace == "lab-capstone"


# The errata


def test_an_erratum_names_a_public_page_or_the_part_of_the_curriculum_that_contradicts() -> None:
    for where, erratum in all_errata():
        source = erratum.source
        assert "https://" in source or A_PART_OF_THE_CURRICULUM.search(source), f"{where}: {source}"
        assert "http://" not in source, f"{where}: {source}"


def test_an_erratum_says_something_else_than_the_letter() -> None:
    for where, erratum in all_errata():
        assert erratum.today != erratum.letter, where
    letters = [(where, erratum.letter) for where, erratum in all_errata()]
    assert len(set(letters)) == len(letters)


@pytest.mark.parametrize(
    ("lab", "letter", "today"),
    [
        ("L12", "swap", "recomputing"),
        ("L12", "swap_space", "kv_offloading_size"),
        ("L14", "--enable-chunked-prefill", "default"),
        ("L15", "fp16", "does not fit"),
        ("L16", "7B fp16", "does not fit"),
        ("L17", "prefix caching", "default"),
        ("L18", "--speculative-model", "--speculative-config"),
        ("L18", "Phi-3-mini", "vocabular"),
        ("L19", "Standard_NC8as_T4_v3", "Standard_NC64as_T4_v3"),
        ("L19", "NVLink", "PCIe"),
        ("L20", "Standard_NC8as_T4_v3", "Standard_NC64as_T4_v3"),
        ("L25", "targetAverageUtilization", "target.averageUtilization"),
        ("L26", "PrometheusRule", "adapter"),
        ("L28", "> 3", "threshold"),
        ("L31", "scaleToZeroOnIdle", "minReplicaCount"),
        ("L37", "NGINX", "retired"),
        ("L38", "canary annotation", "HTTPRoute"),
        ("L39", "ef_construction", "ef_construct"),
        ("calendar", "V100", "retired"),
    ],
)
def test_what_is_known_to_be_out_of_date_is_an_erratum(lab: str, letter: str, today: str) -> None:
    assert any(
        where == lab and letter in erratum.letter and today in erratum.today for where, erratum in all_errata()
    ), f"{lab} has no erratum on {letter!r} that says {today!r}"


# The calendar


def test_the_year_runs_from_february_25_to_december_31_in_weeks_that_begin_on_wednesdays() -> None:
    weeks = load_calendar().weeks
    assert (len(weeks), weeks[0].starts, weeks[-1].ends) == (45, date(2026, 2, 25), date(2026, 12, 31))
    assert {week.starts.strftime("%A") for week in weeks} == {"Wednesday"}
    lengths = Counter((week.ends - week.starts).days + 1 for week in weeks)
    assert lengths == {7: 44, 2: 1}


def test_one_week_is_skipped_and_two_share_their_dates_and_nothing_else_is_odd() -> None:
    odd = {
        (before.number, week.number): (week.starts - before.ends).days
        for before, week in pairwise(load_calendar().weeks)
        if week.starts != before.ends + timedelta(days=1)
    }
    assert odd == {(13, 14): 8, (42, 43): -6}
    assert load_calendar().week(14).starts == date(2026, 6, 3)
    assert load_calendar().week(42).starts == load_calendar().week(43).starts == date(2026, 12, 16)
    assert load_calendar().week(44).starts == date(2026, 12, 23)


def test_consolidation_weeks_carry_the_tags_in_the_order_of_their_versions() -> None:
    tags = {week.number: week.consolidation.tag for week in load_calendar().weeks if week.consolidation}
    assert tags == {
        6: "v0.1.0-foundation",
        14: "v0.2.0-gpu-internals",
        22: "v0.3.0-autoscaling",
        30: "v0.4.0-rag-systems",
        36: "v0.5.0-advanced-serving",
        43: "v0.6.0-finops",
        45: "v1.0.0",
    }


def test_ten_posts_are_each_written_in_the_week_that_names_them() -> None:
    calendar = load_calendar()
    assert [(post.number, post.week) for post in calendar.posts] == [
        (1, 6), (2, 14), (3, 14), (4, 22), (5, 30), (6, 30), (7, 36), (8, 36), (9, 43), (10, 45)
    ]  # fmt: skip
    for post in calendar.posts:
        consolidation = calendar.week(post.week).consolidation
        assert consolidation is not None
        assert post.number in consolidation.posts
    assert [post.number for post in calendar.posts if post.short] == [3, 6, 8]
    assert len({post.title for post in calendar.posts}) == 10


def test_the_erratum_on_the_headings_says_what_counting_says() -> None:
    phases = load_calendar().phases
    counted = Counter(lab.phase for lab in labs())
    promised = [phase.labs_in_heading for phase in phases]
    actual = [counted[phase.number] for phase in phases]
    assert promised != actual
    erratum = next(e for e in load_calendar().errata if "headings of the phases" in e.letter)
    assert [int(n) for n in re.findall(r"\d+", erratum.letter)] == [*promised, sum(promised)]
    assert [int(n) for n in re.findall(r"\d+", erratum.today)] == [*actual, sum(actual)]


def test_every_week_with_labs_has_two_but_three() -> None:
    counted = Counter(lab.week for lab in labs())
    without_labs = {week.number for week in load_calendar().weeks} - counted.keys()
    assert without_labs == {6, 14, 22, 30, 36, 43}
    assert {week: count for week, count in counted.items() if count != 2} == {42: 3, 45: 1}


def refusal(tmp_path: Path, old: str, new: str) -> str:
    text = (CATALOG_DIR / "calendar.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "calendar.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        read_model(path, Calendar)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{number: 2, starts", "{number: 3, starts", r"weeks: expected the numbers 1 to 45 in order"),
        ("starts: 2026-03-04", "starts: 2026-03-01", r"week 2 starts on 2026-03-01, but week 1 ends on 2026-03-03"),
        ("ends: 2026-03-10", "ends: 2026-03-04", r"weeks\.1: ends \(2026-03-04\) does not come after starts"),
        ("starts: 2026-02-25", "starts: 2025-02-25", r"weeks: week 1 does not lie in 2026"),
        ("ends: 2026-12-31", "ends: 2027-01-05", r"weeks: week 45 does not lie in 2026"),
        ("first_week: 7", "first_week: 8", r"phases: phase 2 must begin with week 7"),
        ("last_week: 45", "last_week: 44", r"phases: the last one ends with week 44, but there are 45 weeks"),
        ("posts: [2, 3]", "posts: [2]", r"posts: post 3 and week 14 must name each other"),
        ("posts: [9]", "posts: [9, 11]", r"posts: post 11 and week 43 must name each other"),
        ("posts: [7, 8]", "posts: [7, 8, 8]", r"posts: post 8 and week 36 must name each other, once"),
        ("tag: v0.2.0-gpu-internals", "tag: v0.1.0-foundation", r"tag v0\.1\.0-foundation is given more than once"),
        ("tag: v1.0.0", "tag: one", r"weeks\.44\.consolidation\.tag: expected a tag such as v1\.0\.0, but found 'one'"),
        ("starts: 2026-03-04", "starts: March 4", r"weeks\.1\.starts: input should be a valid date"),
    ],
)
def test_a_wrong_calendar_is_refused_by_file_line_and_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    message = refusal(tmp_path, old, new)
    assert re.search(said, message), message
    assert re.search(r"calendar\.yaml:\d+: ", message)


def test_a_week_or_phase_that_the_year_does_not_have_is_refused_by_name() -> None:
    calendar = load_calendar()
    with pytest.raises(LookupError, match="there is no week 0; the year has weeks 1 to 45"):
        calendar.week(0)
    with pytest.raises(LookupError, match="there is no phase 9; the year has phases 1 to 8"):
        calendar.phase(9)
