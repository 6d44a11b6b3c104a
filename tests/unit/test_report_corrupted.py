"""Corrupted inputs to the report: each one ends in a clear message, or in a gap that is seen; never in a wrong number.

A case starts from a sound run of L06, spoils the lake, and says what must come of it. Where the page is still made,
`never` names numbers that would be wrong on it; where it isn't, the message has to name the file and what to do.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab_pipelines import baseline
from lab_pipelines.baseline import BaselineError
from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.report.markdown import render_markdown
from lab_pipelines.report.page import render_pages
from lab_pipelines.report.read import read_report
from lab_pipelines.report.write import ReportError, write_lab, write_phase, write_report
from resources.contract import WarehouseError
from resources.warehouse import Warehouse
from tests.support.rows.results import finding_row
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import session_row
from tests.support.warehouses import publish_run, warehouse_in

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
HOSTILE = "\"'><script>alert(1)</script> [click](javascript:x) | _a_ `b` \x1b[31m"
REMEDY = "Restore the files, or move the run out of the lake"
TTFT_S, COLD_START, PRICE = "0.320", "10 min 41 s", "0.001638"
"""What the sound run shows of one user: median TTFT, cold start, price of 1K tokens."""


@dataclass(frozen=True)
class Spoiled:
    """A sound run in a lake of its own, to be spoiled."""

    warehouse: Warehouse

    def files(self, table: str) -> list[Path]:
        return sorted((Path(self.warehouse.data_dir) / "lake" / table).rglob("*.parquet"))

    def file(self, table: str) -> Path:
        (path,) = self.files(table)
        return path

    def remove(self, *tables: str) -> None:
        for table in tables:
            self.file(table).unlink()

    def keep(self, *tables: str) -> None:
        for path in (Path(self.warehouse.data_dir) / "lake").rglob("*.parquet"):
            if path.relative_to(Path(self.warehouse.data_dir) / "lake").parts[0] not in tables:
                path.unlink()

    def rewrite(self, table: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        """Write the file again with other rows and the same stamp, as no part of the project does."""
        path = self.file(table)
        data = pq.ParquetFile(path).read()
        path.unlink()
        pq.write_table(pa.Table.from_pylist(change(data.to_pylist()), schema=data.schema), path, compression="zstd")

    def set(self, table: str, **columns: Any) -> None:
        """Give the first row of a table other values."""
        self.rewrite(table, lambda rows: [rows[0] | columns, *rows[1:]])

    def set_all(self, table: str, **columns: Any) -> None:
        self.rewrite(table, lambda rows: [row | columns for row in rows])

    def drop(self, table: str, *columns: str) -> None:
        """Write the file again without columns, as a file from before they were there."""
        path = self.file(table)
        data = pq.ParquetFile(path).read().drop_columns(list(columns))
        path.unlink()
        pq.write_table(data, path)


@dataclass(frozen=True)
class Case:
    name: str
    spoil: Callable[[Spoiled], Any]
    refused: str = ""
    """What the message says, as a pattern; empty: the page is made."""
    shown: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    table: str = ""
    """Whose file the message names."""
    run: dict[str, Any] = field(default_factory=dict)
    """Columns of the sound run."""


MEASURED = {"engine": "external", "provenance": "measured", "time_scale": 1.0}
DOUBLED = "there more than once"


def cut_short(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def blank_data(path: Path) -> None:
    """Zeros where the values are; the footer stays."""
    content = bytearray(path.read_bytes())
    content[8 : len(content) // 3] = bytes(len(content) // 3 - 8)
    path.write_bytes(content)


def copy_to(spoiled: Spoiled, table: str, **parts: str) -> None:
    path = spoiled.file(table)
    folder = path.parent.parent / f"lab={parts.get('lab', 'L06')}"
    folder.mkdir(exist_ok=True)
    shutil.copy(path, folder / parts.get("name", path.name))


def publish_again(spoiled: Spoiled, table: str) -> None:
    """A second file with the same rows, as of a retry under another name."""
    rows = pq.ParquetFile(spoiled.file(table)).read().to_pylist()
    first = rows[0]
    spoiled.warehouse.publish(
        table, rows, target=first["target"], lab=first["lab"], run_id=first["run_id"], part="again"
    )


def foreign_file(spoiled: Spoiled) -> None:
    path = spoiled.file("findings")
    data = pq.ParquetFile(path).read().replace_schema_metadata({})
    path.unlink()
    pq.write_table(data, path)


def old_read_model(spoiled: Spoiled) -> None:
    import duckdb

    with duckdb.connect(str(spoiled.warehouse.snapshot_path)) as connection:
        connection.execute("CREATE TABLE load_stages (lab VARCHAR, output_tokens BIGINT)")
        connection.execute("INSERT INTO load_stages VALUES ('L06', 987654321)")


CASES = [
    # Half a lake
    Case("an empty lake", lambda s: s.keep(), shown=("None of the year's 78 labs has results yet.",)),
    Case("no sheet", lambda s: s.remove("finops_sheet"), shown=(TTFT_S,), never=(PRICE,)),
    Case(
        "stages without their requests",
        lambda s: s.remove("requests"),
        shown=("the requests that they counted", "ttft at 1, 4 users: no valid request began and ended in the stage"),
        never=(TTFT_S,),
    ),
    Case(
        "requests without their stages",
        lambda s: s.keep("stack_sessions", "requests", "findings"),
        shown=("the load stage that they were sent in",),
        never=(TTFT_S,),
    ),
    Case(
        "stages without a session",
        lambda s: s.remove("stack_sessions"),
        shown=("the session that served them", "the session that they are of"),
        never=(COLD_START, "10.7 min"),
    ),
    Case(
        "costs without a session",
        lambda s: s.keep("cost_records", "load_stages", "requests"),
        shown=("the session that they are of", "GPU-hours, without those of 1 session that did not record them"),
        never=(COLD_START,),
    ),
    Case("nothing but costs", lambda s: s.keep("cost_records"), shown=("None of the year's 78 labs has results yet.",)),
    Case(
        "a stage without its costs",
        lambda s: s.remove("cost_records", "finops_sheet"),
        shown=("the costs of their session", "not known"),
        never=(PRICE,),
    ),
    Case(
        "findings of a lab that is gone",
        lambda s: publish_run(
            s.warehouse,
            {
                "stack_sessions": [session_row(lab="L99", run_id="gone", session_id="gone")],
                "findings": [finding_row(lab="L99", run_id="gone", session_id="gone", claim="It was once true")],
            },
        ),
        shown=("not in the catalog", "It was once true", "1 of the year's 78 labs has results"),
        never=("2 of the year's 78 labs",),
    ),
    Case(
        "no price for the machine",
        lambda s: (
            s.set_all("cost_records", ListUnitPrice=None, ListCost=None, x_price_low=None, x_price_high=None)
            or s.set_all("finops_sheet", usd=None, usd_per_1k_tokens=None)
        ),
        shown=("no price known", "not known"),
        never=(PRICE, "0.526"),
    ),
    Case(
        "a stack that was never released",
        lambda s: s.rewrite("stack_sessions", lambda rows: rows[:1]),
        shown=("no record",),
    ),
    # Older files
    Case(
        "an older file without later columns",
        lambda s: s.drop("load_stages", "profile", "request_kind", "offered_per_s", "model_range"),
        shown=(TTFT_S,),
    ),
    Case(
        "a file without a column that every row has",
        lambda s: s.drop("load_stages", "duration_s"),
        refused=r"lacks duration_s, which load_stages\.sql now requires",
        table="load_stages",
    ),
    Case(
        "a read model of another schema",
        old_read_model,
        shown=(TTFT_S,),
        never=("987 654 321", "987654321"),
    ),
    # Files that are no files of ours
    Case(
        "a truncated file",
        lambda s: cut_short(s.file("requests"), 0.6),
        refused="can't be read as Parquet",
        table="requests",
    ),
    Case(
        "a file of no bytes",
        lambda s: cut_short(s.file("findings"), 0),
        refused="can't be read as Parquet",
        table="findings",
    ),
    Case(
        "a damaged page", lambda s: blank_data(s.file("requests")), refused="can't be read as Parquet", table="requests"
    ),
    Case(
        "a file in another lab's folder",
        lambda s: copy_to(s, "load_stages", lab="L11"),
        refused="says that it is load_stages/target=local/lab=L06.*Move it out",
        table="load_stages",
    ),
    Case(
        "a copy beside the original",
        lambda s: copy_to(s, "cost_records", name="copy.parquet"),
        refused="says that it is cost_records/.*Move it out",
        table="cost_records",
    ),
    Case("a file of another origin", foreign_file, refused="was not written by this warehouse", table="findings"),
    # Values that can't be
    Case(
        "NaN among latencies",
        lambda s: s.set("requests", ttft_s=float("nan")),
        refused="no finite ttft_s",
        table="requests",
    ),
    Case(
        "NaN among events",
        lambda s: s.set("requests", event_offsets_s=[0.1, float("nan"), 0.3]),
        refused="no finite event_offsets_s",
        table="requests",
    ),
    Case(
        "infinite effect",
        lambda s: s.set("findings", effect=float("inf")),
        refused="no finite effect",
        table="findings",
    ),
    Case(
        "negative duration",
        lambda s: s.set("load_stages", duration_s=-5.0),
        refused="a negative duration_s",
        table="load_stages",
    ),
    Case(
        "a session that ended before it began",
        lambda s: s.set_all("stack_sessions", ready_at=datetime(2020, 1, 1, tzinfo=UTC)),
        refused="ready_at before requested_at",
        table="stack_sessions",
    ),
    Case(
        "a clock that is ahead",
        lambda s: s.set_all("load_stages", recorded_at=datetime.now(UTC) + timedelta(days=30)),
        refused="recorded in the future",
        table="load_stages",
    ),
    Case(
        "more tokens than can be",
        lambda s: s.set("load_stages", output_tokens=2**62),
        refused="a output_tokens beyond anything that can be",
        table="load_stages",
    ),
    Case(
        "a rule of the contract broken",
        lambda s: s.set("findings", provenance="measured"),
        refused="against the rule",
        table="findings",
    ),
    Case(
        "several provenances in one session",
        lambda s: s.set_all("findings", provenance="modelled"),
        refused="say that they are of L06 local measured and of L06 local modelled",
        run=MEASURED,
    ),
    # Rows that are there twice, or half
    Case(
        "requests twice in a file",
        lambda s: s.rewrite("requests", lambda rows: rows * 2),
        refused=r"stage 0 of ramp counted 24, and the lake has 48",
        table="requests",
    ),
    Case(
        "half of the requests",
        lambda s: s.rewrite("requests", lambda rows: rows[::2]),
        refused=r"counted 24, and the lake has 12",
        table="requests",
    ),
    Case("costs published twice", lambda s: publish_again(s, "cost_records"), refused=DOUBLED, table="cost_records"),
    Case("stages published twice", lambda s: publish_again(s, "load_stages"), refused=DOUBLED, table="load_stages"),
    Case("findings published twice", lambda s: publish_again(s, "findings"), refused=DOUBLED, table="findings"),
    # Text
    Case(
        "markup in names and reasons",
        lambda s: s.set("findings", claim=HOSTILE, reason=HOSTILE, method=HOSTILE),
        shown=("<script>alert(1)</script>",),
    ),
    Case(
        "megabytes of text",
        lambda s: s.set("findings", reason="x" * 8_000_000),
        shown=("more characters",),
    ),
]


def spoiled_in(folder: Path, **columns: Any) -> Spoiled:
    warehouse = warehouse_in(folder)
    publish_run(warehouse, lab_run(users=(1, 4), **columns))
    return Spoiled(warehouse)


def text_of(page: str) -> str:
    """What a reader sees of a page, without its pictures."""
    without = re.sub(r"<(style|svg)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", without)).split())


def made(warehouse: Warehouse) -> tuple[str, str]:
    """All pages, and the Markdown."""
    report = read_report(warehouse, load_catalog(), now=NOW)
    return "\n".join(render_pages(report).values()), render_markdown(report)


def test_the_sound_run_shows_what_the_cases_must_not(tmp_path: Path) -> None:
    text = text_of(made(spoiled_in(tmp_path).warehouse)[0])
    assert all(number in text for number in (TTFT_S, COLD_START, PRICE))
    assert "Rows without the rows that they belong to" not in text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_corrupted_input_ends_in_a_message_or_a_gap_and_never_in_a_wrong_number(tmp_path: Path, case: Case) -> None:
    spoiled = spoiled_in(tmp_path, **case.run)
    case.spoil(spoiled)
    if case.refused:
        with pytest.raises(WarehouseError) as error:
            made(spoiled.warehouse)
        first = str(error.value).splitlines()[0]
        assert re.search(case.refused, first), first
        assert f"lake/{case.table}" in first and ".parquet" in first, "it names the file"
        assert re.search(r"Restore|[Mm]ove it out|Give the column a default", first), "and the remedy"
        return
    page, markdown = made(spoiled.warehouse)
    text = text_of(page)
    for shown in case.shown:
        assert shown in text, text
    for number in case.never:
        assert number not in text and number not in markdown
    assert len(page) < 5_000_000
    assert not re.search(r"\b(nan|inf|infinity|None)\b(?! of the year)", text)
    assert not re.search(r"<script", page) and not re.search(r"(?<!\\)(<script|\[click)", markdown)


def test_a_session_of_two_labs_is_named_by_a_file_that_is_there(tmp_path: Path) -> None:
    spoiled = spoiled_in(tmp_path)
    rows = [row | {"lab": "L07"} for row in pq.ParquetFile(spoiled.file("cost_records")).read().to_pylist()]
    spoiled.remove("cost_records")
    spoiled.warehouse.publish("cost_records", rows, target=rows[0]["target"], lab="L07", run_id=rows[0]["run_id"])
    with pytest.raises(WarehouseError, match=r"are of L06 local modelled and of L07 local modelled") as error:
        made(spoiled.warehouse)
    named = Path(str(error.value).partition(": ")[0])
    assert list(named.parent.glob(named.name))


# Where it is written


def test_a_file_in_the_folder_s_place_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("not a folder")
    with pytest.raises(ReportError, match=r"report\S* can't be written: .*--out DIR"):
        write_report(spoiled_in(tmp_path).warehouse, load_catalog(), tmp_path / "report")


def test_a_lab_and_a_phase_without_results_are_refused_by_name(tmp_path: Path) -> None:
    warehouse = spoiled_in(tmp_path).warehouse
    with pytest.raises(ReportError, match=r"L23 has no results yet: labs run L23"):
        write_lab(warehouse, load_catalog(), "L23", tmp_path)
    with pytest.raises(ReportError, match=r"no lab of phase 2 has results yet"):
        write_phase(warehouse, load_catalog(), 2, tmp_path)


def test_a_full_disk_leaves_the_former_page_and_says_so_in_one_line(tmp_path: Path) -> None:
    """No file may grow beyond 20,000 bytes: what a write on a full disk meets, it meets in its midst."""
    spoiled = spoiled_in(tmp_path)
    former = write_report(spoiled.warehouse, load_catalog(), tmp_path / "out").html
    before = former.read_bytes()
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{limited}from lab_pipelines.cli.app import main; main()",
            "report",
            "--out",
            former.parent,
        ],
        env={**os.environ, "LABS_DATA_DIR": spoiled.warehouse.data_dir},
        capture_output=True,
        text=True,
        cwd=REPO_ROOT,
        check=False,
    )
    assert ran.returncode == 1
    assert re.fullmatch(r"labs: \S+ can't be written: File too large\. Free some space .*\n", ran.stderr), ran.stderr
    assert former.read_bytes() == before
    assert not list(former.parent.glob("*.tmp"))


def test_a_baseline_that_was_edited_stops_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "baselines"
    shutil.copytree(baseline.BASELINES_DIR, copied)
    pinned = copied / "L06" / "local" / "0001.json"
    pinned.chmod(0o644)
    pinned.write_text(re.sub(r'"output_tokens_per_s": 254', '"output_tokens_per_s": 154', pinned.read_text()))
    monkeypatch.setattr(baseline, "BASELINES_DIR", copied)
    with pytest.raises(BaselineError, match=r"0001\.json: its digest .* restore the file from version control"):
        write_report(spoiled_in(tmp_path).warehouse, load_catalog(), tmp_path / "report")


def test_a_data_folder_that_can_t_be_one_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the folder's place")
    ran = subprocess.run(
        [sys.executable, "-m", "lab_pipelines.cli", "report", "--lab", "L06"],
        env={**os.environ, "LABS_DATA_DIR": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        cwd=REPO_ROOT,
        check=False,
    )
    assert ran.returncode == 1
    assert re.fullmatch(r"labs: .*\n", ran.stderr) and "LABS_DATA_DIR" in ran.stderr, ran.stderr


def test_a_spoiled_lake_is_one_line_at_the_command_line(tmp_path: Path) -> None:
    spoiled = spoiled_in(tmp_path)
    spoiled.set("requests", e2e_s=-1.0)
    ran = subprocess.run(
        [sys.executable, "-m", "lab_pipelines.cli", "report"],
        env={**os.environ, "LABS_DATA_DIR": spoiled.warehouse.data_dir},
        capture_output=True,
        text=True,
        cwd=REPO_ROOT,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert re.fullmatch(rf"labs: \S+/requests/\S+: 1 row: a negative e2e_s\. {REMEDY}.*\n", ran.stderr), ran.stderr
