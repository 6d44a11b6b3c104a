"""The report as a reader sees it: in a real Chromium, on a phone and on a desk, by day and by night, on paper.

The pictures land in the test's folder, and in the one that LABS_SCREENSHOTS names, such as docs/images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Page, sync_playwright

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.report.write import write_lab, write_report
from tests.support.browser import BROWSER_ARGUMENTS, found_browser
from tests.support.rows.runs import lab_run, variants_run
from tests.support.rows.sessions import event_row, session_row
from tests.support.warehouses import publish_run, warehouse_in

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

PHONE, DESK = 390, 1280
AKS = {"target": "aks", "engine": "vllm", "provenance": "measured", "time_scale": 1.0, "pace": "full"}
REHEARSAL = {"target": "rehearsal", "pace": "full", "time_scale": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of two targets, three labs in two phases; a refused variant, a failed step, a forecast."""
    place = tmp_path_factory.mktemp("pages")
    warehouse = warehouse_in(place)
    publish_run(warehouse, lab_run(users=(1, 4, 16), run_id="l06", session_id="l06", **AKS))
    publish_run(warehouse, lab_run(users=(1, 4, 16), slower=1.2, run_id="l06r", session_id="l06r", **REHEARSAL))
    refused = {"gmu-0.40": "No available memory for the cache blocks: <-1.02> GiB " + "of-a-very-long-word" * 12}
    publish_run(warehouse, variants_run({"gmu-0.70": 1.0, "gmu-0.95": 0.9}, refused=refused, **REHEARSAL))
    bare = {"lab": "L07", "run_id": "l07", "session_id": "l07", "engine": "none"} | {"target": "rehearsal"}
    failed = event_row(**bare, kind="apply", name="quota", outcome="failed", detail='{"error": "forbidden: quota"}')
    publish_run(warehouse, {"stack_sessions": [session_row(**bare, model=None)], "events": [failed]})
    write_report(warehouse, load_catalog(), place / "report")
    write_lab(warehouse, load_catalog(), "L11", place / "report")
    return place / "report"


@dataclass(frozen=True)
class Reader:
    page: Page
    asked: list[str]
    """The URL of every request."""
    complained: list[str]
    """What the page's console said."""

    def open(self, path: Path) -> None:
        self.page.goto(path.as_uri())


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[int, str], Reader]]:
    """One for each width and colour scheme."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found_browser(), args=BROWSER_ARGUMENTS)
        found = {}
        for width in (PHONE, DESK):
            for scheme in schemes:
                context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
                reader = Reader(context.new_page(), [], [])
                reader.page.on("request", lambda request, asked=reader.asked: asked.append(request.url))
                reader.page.on("console", lambda message, said=reader.complained: said.append(message.text))
                found[width, scheme] = reader
        try:
            yield found
        finally:
            browser.close()


def pages_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.html"))


def keep(picture: Path, name: str) -> None:
    if kept := os.environ.get("LABS_SCREENSHOTS"):
        (Path(kept) / name).write_bytes(picture.read_bytes())


def test_the_folder_has_the_year_two_phases_and_a_lab(folder: Path) -> None:
    assert [page.name for page in pages_in(folder)] == [
        "L11.html",
        "phase-1.html",
        "phase-2.html",
        "year_in_numbers.html",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_every_page_fits_its_reader_and_asks_for_nothing(
    folder: Path, readers: dict[tuple[int, str], Reader], tmp_path: Path, width: int, scheme: str
) -> None:
    reader = readers[width, scheme]
    for path in pages_in(folder):
        reader.asked.clear()
        reader.open(path)
        wide = reader.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1], f"{path.name} scrolls sideways at {width} px"
        assert reader.asked == [path.as_uri()]
        assert reader.complained == []
        ground, ink = reader.page.evaluate(
            "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
        )
        assert brightness(ground) < brightness(ink) if scheme == "dark" else brightness(ground) > brightness(ink)
        shot = tmp_path / f"{path.stem}-{width}-{scheme}.png"
        reader.page.screenshot(path=shot)
        assert shot.stat().st_size > 5_000
        keep(shot, f"report-{shot.name}")


def test_every_picture_has_words_and_stands_beside_its_provenance(
    folder: Path, readers: dict[tuple[int, str], Reader]
) -> None:
    page = readers[DESK, "light"].page
    for path in pages_in(folder):
        page.goto(path.as_uri())
        labels = page.eval_on_selector_all(
            "svg:not(svg svg)", "all => all.map(one => [one.getAttribute('role'), one.getAttribute('aria-label')])"
        )
        assert labels
        assert all(role == "img" and ("modelled" in label or "measured" in label) for role, label in labels)
        for target in page.eval_on_selector_all("section.chapter > h2.chapter", "all => all.map(one => one.id)"):
            others = {"aks", "rehearsal"} - {target}
            said = page.eval_on_selector_all(
                f"section[aria-labelledby='{target}'] svg",
                "all => all.map(one => one.getAttribute('aria-label') || '')",
            )
            if target != "forecast":
                assert not [label for label in said for other in others if f"target {other}" in label]


def test_links_lead_to_what_is_there_and_back(folder: Path, readers: dict[tuple[int, str], Reader]) -> None:
    page = readers[PHONE, "light"].page
    for path in pages_in(folder):
        page.goto(path.as_uri())
        for link in page.eval_on_selector_all("a", "all => all.map(one => one.href)"):
            parts = urlsplit(link)
            there = Path(unquote(parts.path))
            assert there.parent == folder and there.exists(), link
            page.goto(link)
            found = page.evaluate("id => !id || document.getElementById(id) !== null", parts.fragment)
            assert found, link
    page.goto((folder / "year_in_numbers.html").as_uri())
    page.get_by_role("link", name="L11 The KV Cache Budget").click()
    assert page.url.endswith("phase-2.html#rehearsal-L11")
    page.get_by_role("link", name="The year in numbers").click()
    assert page.url.endswith("year_in_numbers.html")


def test_the_year_prints_on_white_with_its_tables_whole(folder: Path, readers: dict[tuple[int, str], Reader]) -> None:
    page = readers[DESK, "dark"].page
    page.goto((folder / "year_in_numbers.html").as_uri())
    page.emulate_media(media="print")
    assert brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255
    cut = page.eval_on_selector_all(
        ".scroll", "all => all.filter(one => getComputedStyle(one).overflowX !== 'visible')"
    )
    assert cut == []
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.emulate_media(media="screen")


def brightness(colour: str) -> float:
    """Of `rgb(20, 23, 27)`, from 0 to 255; a ground that is transparent is white paper."""
    numbers = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")]
    return 255.0 if len(numbers) == 4 and numbers[3] == 0 else sum(numbers[:3]) / 3
