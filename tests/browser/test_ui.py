"""Dagster's UI as a person uses it: a real Chromium opens the asset graph, launches L06 and sees it succeed.

Selectors are what a person reads (roles and texts), since the UI is Dagster's and its markup changes with every
release. The pictures land in the test's folder, and in the one that LABS_SCREENSHOTS names, such as docs/images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from lab_pipelines.deployment import REPO_ROOT
from tests.support import main_command
from tests.support.browser import BROWSER_ARGUMENTS, found_browser
from tests.support.main_command import Place

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

LAB_ASSETS = ["deployed_stack", "load_run", "metrics_snapshot", "cost_attribution", "finops_sheet"]
BILL = "bill"
REPORT = "year_in_numbers"

START_TIMEOUT_S = 120
RUN_TIMEOUT_MS = 240_000
STEP_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Ui:
    url: str
    place: Place
    process: subprocess.Popen[str]


@dataclass(frozen=True)
class Browser:
    page: Page
    asked: list[str]
    """The URL of every request that any page made."""


@pytest.fixture(scope="module")
def browser_program() -> str:
    return found_browser()


@pytest.fixture
def ui(browser_program: str, tmp_path: Path) -> Iterator[Ui]:
    """What `make ui` starts once everything is set up, over an instance and a warehouse of its own."""
    with main_command.prepared(tmp_path / "place") as place:
        log = place.folder / "ui.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "scripts/serve_ui.py"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env=place.environ("smoke"),
                cwd=REPO_ROOT,
            )
        assert process.stdout is not None
        try:
            announced = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert announced, log.read_text(errors="replace")
            wait_until_it_answers(announced[0], process, log)
            yield Ui(announced[0], place, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)


def wait_until_it_answers(url: str, process: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)  # `dagster dev` tells nobody when its web server is ready


@pytest.fixture
def browser(browser_program: str, tmp_path: Path) -> Iterator[Browser]:
    asked: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=browser_program,
            args=BROWSER_ARGUMENTS,
            viewport={"width": 1640, "height": 470},  # the whole lineage at a scale that still shows the checks
        )
        try:
            context.set_default_timeout(STEP_TIMEOUT_MS)
            expect.set_options(timeout=STEP_TIMEOUT_MS)
            context.on("request", lambda request: asked.append(request.url))
            yield Browser(context.new_page(), asked)
        finally:
            context.close()


def open_asset_graph(ui: Ui, page: Page) -> None:
    """The lineage of all assets with both groups expanded, fitted to the window."""
    page.goto(f"{ui.url}/asset-groups")
    expect(page.get_by_role("button", name="Materialize all")).to_be_enabled()
    hide = page.get_by_text("Hide navigation")
    if hide.is_visible():
        hide.click()
    page.locator("[aria-label=settings]").last.click()
    expand = page.get_by_role("menuitem", name="Expand all groups")
    if expand.is_visible():
        expand.click()
    else:
        page.keyboard.press("Escape")
    page.locator("[aria-label=panel_show_right]").last.click()
    # A double click on the empty canvas fits the graph to the window.
    page.mouse.dblclick(300, 150)


def choose_partition(page: Page, dialog: Locator, partition: str) -> None:
    """In the dialog that "Materialize all" opens."""
    dialog.get_by_text("Select a partition").click()
    page.get_by_placeholder("Filter partitions").fill(partition)
    page.get_by_text(partition, exact=True).first.click()
    page.keyboard.press("Escape")


def checks_of(ui: Ui) -> dict[str, dict[str, bool]]:
    """Of each asset that has any: its checks, and whether each passed for the newest materialization."""
    question = """{ assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks { checks {
        name executionForLatestMaterialization { status } } } } } }"""
    request = urllib.request.Request(
        f"{ui.url}/graphql",
        data=json.dumps({"query": question}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        nodes = json.load(answer)["data"]["assetNodes"]
    return {
        node["assetKey"]["path"][-1]: {
            check["name"]: check["executionForLatestMaterialization"]["status"] == "SUCCEEDED" for check in checks
        }
        for node in nodes
        if (checks := node["assetChecksOrError"].get("checks"))
    }


def keep(page: Page, picture: Path) -> None:
    """Screenshot to `picture`, and to the folder that LABS_SCREENSHOTS names."""
    page.screenshot(path=picture)
    if folder := os.environ.get("LABS_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)


def test_l06_is_launched_from_the_asset_graph_and_succeeds(ui: Ui, browser: Browser, tmp_path: Path) -> None:
    page = browser.page
    open_asset_graph(ui, page)
    for asset in [*LAB_ASSETS, BILL, REPORT]:
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()

    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog").filter(has_text="materialize 7 assets")
    choose_partition(page, dialog, "L06")
    dialog.get_by_role("button", name="Launch 1 run").click()
    expect(dialog).to_be_hidden()

    page.goto(f"{ui.url}/runs")
    page.locator("a[href*='/runs/']").first.click()
    ended = page.get_by_text(re.compile(r"^(Success|Failure|Canceled)$")).first
    ended.wait_for(timeout=RUN_TIMEOUT_MS)
    assert ended.inner_text() == "Success", page.inner_text("body")
    page.set_viewport_size({"width": 1400, "height": 900})
    keep(page, tmp_path / "run.png")

    page.set_viewport_size({"width": 1640, "height": 660})
    open_asset_graph(ui, page)
    checks = checks_of(ui)
    expected = {"load_run": 4, "metrics_snapshot": 2, "cost_attribution": 1, "finops_sheet": 1}
    assert {name: len(ended) for name, ended in checks.items()} == expected
    # At this pace L06's claim is open, and one busy moment is enough for the client's own error: both only warn.
    warned = {name for ended in checks.values() for name, passed in ended.items() if not passed}
    assert "claims" in warned and warned <= {"claims", "client_is_within_its_error_budget"}, checks
    shown = Counter(f"{sum(ended.values())} / {len(ended)} Passed" for ended in checks.values())
    for text, assets in shown.items():
        expect(page.get_by_text(text, exact=True)).to_have_count(assets)
    expect(page.get_by_text("1% filled")).to_have_count(len(LAB_ASSETS))  # one of 78 partitions
    expect(page.get_by_text("Materialized", exact=True)).to_have_count(2)  # the bill and the report have no partitions
    keep(page, tmp_path / "ui.png")

    with duckdb.connect(str(ui.place.snapshot), read_only=True) as warehouse:
        stages = warehouse.sql("SELECT engine, users FROM load_stages ORDER BY users").fetchall()
    assert stages == [("modelled-vllm", 1), ("modelled-vllm", 4)]
    elsewhere = {host for url in browser.asked if (host := urlsplit(url).hostname) not in (None, "127.0.0.1")}
    assert elsewhere == set(), "the UI asks servers on the internet"

    ui.process.send_signal(signal.SIGTERM)
    assert ui.process.wait(timeout=120) == 0
    assert main_command.processes_of(ui.place) == []
