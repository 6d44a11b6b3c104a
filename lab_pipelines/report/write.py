"""Writes the report's files. The only part of the report that touches the disk, apart from its own templates."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines.baseline_rows import publish_baselines
from lab_pipelines.catalog.loader import Catalog
from lab_pipelines.report.drawn import kept_in
from lab_pipelines.report.read import read_report

if TYPE_CHECKING:
    from resources.warehouse_core import WarehouseCore

NAME = "year_in_numbers"


@dataclass(frozen=True)
class ReportFiles:
    html: Path
    markdown: Path
    summary: str
    """The Markdown itself, for a place that shows it, e.g. an asset's metadata."""
    labs: int
    labs_with_results: int
    stages: int


def write_report(warehouse: WarehouseCore, catalog: Catalog, out_dir: Path) -> ReportFiles:
    """Write `year_in_numbers.html` and `.md` into `out_dir`, replacing the former ones; each appears as a whole."""
    from lab_pipelines.report.page import render_html, render_markdown

    publish_baselines(warehouse)  # what a fresh checkout has pinned, its lake may not hold yet
    report = read_report(warehouse, catalog, now=datetime.now(UTC))
    summary = render_markdown(report)
    files = ReportFiles(
        html=out_dir / f"{NAME}.html",
        markdown=out_dir / f"{NAME}.md",
        summary=summary,
        labs=len(report.labs),
        labs_with_results=len(report.labs_with_results),
        stages=sum(len(section.stages) for section in report.sections),
    )
    with kept_in(out_dir / "pictures"):
        page = render_html(report)
    replace_file(files.html, page)
    replace_file(files.markdown, summary)
    return files


def replace_file(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the former file or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        temporary.chmod(0o644)  # mkstemp keeps a file to its owner; a report is meant to be shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
