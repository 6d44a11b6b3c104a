"""The UI's table of labs is the catalogue's own, though it reads only what it shows."""

from __future__ import annotations

from pathlib import Path

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.spec import Outline
from lab_pipelines.catalog.status import labs_markdown


def test_the_table_says_of_every_lab_what_its_file_says() -> None:
    catalog = load_catalog()
    _, _, *lines = labs_markdown(catalog).splitlines()
    assert len(lines) == len(catalog.ids)
    for line, lab in zip(lines, catalog.labs(), strict=True):
        runs_on = "" if isinstance(lab, Outline) else ", ".join(lab.targets)
        missing = "; ".join(lab.missing) if isinstance(lab, Outline) else ""
        cells = [cell.strip() for cell in line.replace("\\|", "\0").strip("|").split("|")]
        expected = [lab.id, lab.title, str(lab.week), runs_on, missing]
        assert cells == [cell.replace("|", "\0").strip() for cell in expected]


def test_a_broken_file_leaves_the_others_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "L01.yaml").write_text("title: [\n", encoding="utf-8")
    (tmp_path / "L02.yaml").write_text("title: Two\nweek: 1\nmissing:\n  - this | that\n", encoding="utf-8")
    _, _, broken, whole = labs_markdown(load_catalog(tmp_path)).splitlines()
    assert "labs validate" in broken
    assert whole == "| L02 | Two | 1 |  | this \\| that |"
