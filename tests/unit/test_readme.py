"""The README shows the pinned baseline, and everything that it points at is there."""

from __future__ import annotations

import json
import re

import pytest

from lab_pipelines import baseline
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.readme import baseline_markdown, with_baseline

README = (REPO_ROOT / "README.md").read_text(encoding="utf-8")
BASELINES = REPO_ROOT / "results" / "baselines" / "L06" / "local"
# Column of the README's table -> key in the baseline, and what one of the table's units is.
COLUMNS = {
    0: ("users", 1),
    1: ("requests", 1),
    2: ("output_tokens_per_s", 1),
    3: ("ttft_p50_s", 1),
    6: ("itl_p50_s", 1e-3),
}


def test_the_table_is_the_newest_baseline() -> None:
    newest = json.loads(max(BASELINES.glob("*.json")).read_text(encoding="utf-8"))
    [variant] = newest["variants"].values()
    stages = variant["stages"]
    lines = README.split("<!-- baseline:begin -->")[1].split("<!-- baseline:end -->")[0].splitlines()
    table = [[cell.strip(" ≈") for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]
    assert len(table) == len(stages) == 5
    for cells, stage in zip(table, stages, strict=True):
        for column, (key, unit) in COLUMNS.items():
            assert float(cells[column]) * unit == pytest.approx(stage[key], rel=0.01), (key, cells)


def test_the_table_is_what_labs_baseline_readme_writes() -> None:
    pinned = baseline.current("L06", "local")
    assert pinned is not None
    assert with_baseline(README, pinned.content) == README, "run: labs baseline readme"
    assert "modelled" in baseline_markdown(pinned.content)


def test_a_number_that_was_edited_and_a_readme_without_markers_are_found() -> None:
    pinned = baseline.current("L06", "local")
    assert pinned is not None
    table = baseline_markdown(pinned.content)
    edited = README.replace(table, table.replace("254.9", "354.9"))
    assert edited != README and with_baseline(edited, pinned.content) == README
    with pytest.raises(baseline.BaselineError, match="baseline:begin"):
        with_baseline("no markers", pinned.content)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_every_link_within_the_repository_leads_somewhere(target: str) -> None:
    assert (REPO_ROOT / target).exists()


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (REPO_ROOT / "Makefile").read_text(encoding="utf-8")
    for name in set(re.findall(r"\bmake ([a-z]+)", README)):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
