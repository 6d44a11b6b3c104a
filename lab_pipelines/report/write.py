"""Writes the report's files: pages, each whole or not at all, after the checkout's baselines are in the lake.

Doesn't belong here: what is on a page (page.py, markdown.py), the pictures that are kept for the next time (drawn.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines import baseline
from lab_pipelines.baseline_rows import publish_baselines
from lab_pipelines.catalog.loader import Catalog
from lab_pipelines.report.drawn import kept_in
from lab_pipelines.report.read import Report, read_report

if TYPE_CHECKING:
    from resources.warehouse_core import WarehouseCore

NAME = "year_in_numbers"
PICTURES = "pictures"
"""The folder beside the pages that keeps what was drawn, for the next time."""


class ReportError(RuntimeError):
    """The report can't be written. The message names the file, the reason and what to do."""


@dataclass(frozen=True)
class ReportFiles:
    html: Path
    markdown: Path
    phases: list[Path]
    """The pages of the phases with results, in order."""
    summary: str
    """The Markdown itself, for a place that shows it, e.g. an asset's metadata."""
    labs: int
    labs_with_results: int
    stages: int


def write_report(warehouse: WarehouseCore, catalog: Catalog, out_dir: Path) -> ReportFiles:
    """Write `year_in_numbers.html` and `.md` and the phases' pages into `out_dir`, replacing the former ones.

    All of them are complete before the first takes its place. Pages of phases without results are removed. Raises
    `ReportError`, and what `read_report` raises; the former files stay then.
    """
    from lab_pipelines.report.markdown import render_markdown
    from lab_pipelines.report.page import YEAR, render_pages

    report = _read(warehouse, catalog)
    with _writing(out_dir):
        with kept_in(out_dir / PICTURES):
            pages, summary = render_pages(report), render_markdown(report)
        replace_files({**{out_dir / name: page for name, page in pages.items()}, out_dir / f"{NAME}.md": summary})
        for stale in out_dir.glob("phase-[0-9].html"):
            if stale.name not in pages:
                stale.unlink()
    return ReportFiles(
        html=out_dir / YEAR,
        markdown=out_dir / f"{NAME}.md",
        phases=[out_dir / name for name in pages if name != YEAR],
        summary=summary,
        labs=len(report.labs),
        labs_with_results=len(report.labs_with_results),
        stages=sum(len(section.stages) for section in report.sections),
    )


def write_phase(warehouse: WarehouseCore, catalog: Catalog, phase: int, out_dir: Path) -> Path:
    """Write one phase's page alone; its path. Raises as `write_report`, and `ReportError` where it has no results."""
    from lab_pipelines.report.chapters import phases_with_results
    from lab_pipelines.report.page import phase_file, render_phase

    report = _read(warehouse, catalog)
    if phase not in phases_with_results(report):
        raise ReportError(f"no lab of phase {phase} has results yet: labs list --phase {phase} names them")
    return _write_one(out_dir / phase_file(phase), lambda: render_phase(report, phase))


def write_lab(warehouse: WarehouseCore, catalog: Catalog, lab: str, out_dir: Path) -> Path:
    """Write one lab's page alone; its path. Raises as `write_report`, and `ReportError` where it has no results."""
    from lab_pipelines.report.page import lab_file, render_lab

    report = _read(warehouse, catalog)
    if lab not in report.labs_with_results:
        raise ReportError(f"{lab} has no results yet: labs run {lab}")
    return _write_one(out_dir / lab_file(lab), lambda: render_lab(report, lab))


def replace_file(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the former file or all of the new one."""
    replace_files({path: text})


def replace_files(texts: Mapping[Path, str]) -> None:
    """Write several files, each as `replace_file`; the first takes its place when all of them are complete."""
    written: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            written[path] = Path(name)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            written[path].chmod(0o644)  # mkstemp keeps a file to its owner; a report is meant to be shared
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _read(warehouse: WarehouseCore, catalog: Catalog) -> Report:
    publish_baselines(warehouse, baseline.BASELINES_DIR)  # what a fresh checkout has pinned, its lake may not hold yet
    return read_report(warehouse, catalog, now=datetime.now(UTC))


def _write_one(path: Path, render: Callable[[], str]) -> Path:
    with _writing(path.parent):
        # What other pages have drawn stays: only the whole report knows which pictures nobody asks for any more.
        with kept_in(path.parent / PICTURES, sweep=False):
            page = render()
        replace_file(path, page)
    return path


@contextmanager
def _writing(out_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or out_dir
        raise ReportError(
            f"{where} can't be written: {error.strerror or error}. Free some space or give it another folder: --out DIR"
        ) from None
