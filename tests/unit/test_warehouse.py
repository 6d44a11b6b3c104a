"""Rows enter the lake only under the contract's rules, stay there unchanged, and come out as they went in."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Unpack

import pandas as pd
import pytest

from resources.contract import contract
from resources.warehouse import Warehouse, WarehouseError, Within, open_snapshot
from tests.support.rows.common import REQUESTED_AT, RUN_ID
from tests.support.rows.decisions import budget_decision_row, gpu_decision_row, run_mark_row
from tests.support.rows.load import request_row, stage_row
from tests.support.rows.measures import summary_row
from tests.support.rows.money import bill_ask_row, bill_day_row, bill_share_row, cost_row
from tests.support.rows.results import baseline_row
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import event_row, spell_row
from tests.support.warehouses import publish_run, warehouse_in

SCHEMA = Path(Warehouse(data_dir="unused").schema_dir)


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Views are other tests' business."""
    views = tmp_path / "views"
    views.mkdir()
    return warehouse_in(tmp_path, views_dir=str(views))


def publish(warehouse: Warehouse, table: str, *new: dict[str, Any], **where: Any) -> Path:
    return warehouse.publish(table, list(new), **{"target": "local", "lab": "L06", "run_id": RUN_ID} | where)


def refusal(warehouse: Warehouse, table: str, *new: dict[str, Any], **where: Any) -> str:
    with pytest.raises(WarehouseError) as caught:
        publish(warehouse, table, *new, **where)
    assert not list(Path(warehouse.data_dir).rglob("*.parquet*")), "a refused row must leave no file"
    return str(caught.value)


def test_a_run_of_every_table_comes_back_as_it_was_published(warehouse: Warehouse) -> None:
    run = {
        **lab_run(),
        "capacity_spells": [spell_row()],
        "gpu_decisions": [gpu_decision_row()],
        "budget_decisions": [budget_decision_row()],
        "run_marks": [run_mark_row()],
        "baselines": [baseline_row()],
        "bill_days": [bill_day_row()],
        "bill_asks": [bill_ask_row()],
        "bill_shares": [bill_share_row()],
    }
    assert set(run) == set(contract(SCHEMA)), "tests/support/rows/ must know every table"
    publish_run(warehouse, run)
    for table, published in run.items():
        answered = [_without_offsets(row) for row in warehouse.query(f"FROM {table}")]
        assert len(answered) == len(published)
        assert [row for row in published if _without_offsets(row) not in answered] == []
    offsets = warehouse.query("SELECT event_offsets_s FROM requests LIMIT 1")[0]["event_offsets_s"]
    assert offsets == pytest.approx(run["requests"][0]["event_offsets_s"], rel=1e-6)


def _without_offsets(row: dict[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if column != "event_offsets_s"}  # stored as FLOAT


def test_the_file_lies_where_the_design_says(warehouse: Warehouse) -> None:
    lake = Path(warehouse.data_dir) / "lake"
    assert publish(warehouse, "events", event_row()) == (
        lake / "events" / "target=local" / "lab=L06" / f"{RUN_ID}.parquet"
    )
    assert publish(warehouse, "events", event_row(), part="load").name == f"{RUN_ID}-load.parquet"
    assert warehouse.query("SELECT count(*) AS n FROM events") == [{"n": 2}]


def test_times_come_back_aware_and_in_utc(warehouse: Warehouse) -> None:
    east = timezone(timedelta(hours=9))
    at = datetime(2026, 3, 2, 18, 0, 0, 123456, tzinfo=east)
    publish(warehouse, "events", event_row(started_at=at))
    started_at = warehouse.query("SELECT started_at FROM events")[0]["started_at"]
    assert started_at == at
    assert started_at.tzinfo is UTC
    frame = warehouse.frame("SELECT started_at, duration_s FROM events")
    assert isinstance(frame, pd.DataFrame)
    assert frame["started_at"].iloc[0] == pd.Timestamp(at)
    assert str(frame["started_at"].dt.tz) == "UTC"


def test_every_table_can_be_asked_before_anything_was_published(warehouse: Warehouse) -> None:
    for table in contract(SCHEMA):
        assert warehouse.query(f"SELECT count(*) AS n FROM {table}") == [{"n": 0}]
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("SELECT count(*) FROM requests").fetchone() == (0,)
    warehouse.rebuild()  # from the one that holds no file


def test_a_publication_without_rows_is_a_file_without_rows(warehouse: Warehouse) -> None:
    assert publish(warehouse, "metric_samples").exists()
    assert warehouse.query("FROM metric_samples") == []


@pytest.mark.parametrize(
    ("table", "row", "said"),
    [
        ("events", event_row(name=None), "row 1: name=None: expected a value; the column is NOT NULL"),
        ("events", event_row(duration_s=float("nan")), "row 1: duration_s=nan: expected a finite number"),
        ("events", event_row(duration_s=True), "row 1: duration_s=True: expected a finite number"),
        ("events", event_row(trial=1.5), "row 1: trial=1.5: expected an integer"),
        ("events", event_row(trial=2**40), "row 1: trial=1099511627776: expected INTEGER"),
        ("events", event_row(name=7), "row 1: name=7: expected VARCHAR"),
        # The next has no time zone on purpose: that is what is to be found.
        ("events", event_row(started_at=datetime(2026, 3, 2)), "expected a datetime with a time zone"),  # noqa: DTZ001
        ("events", event_row(outcome="meh"), "row 1: {'outcome': 'meh'} breaks the rule"),
        ("events", event_row(lab="L07"), "row 1: lab='L07': the file is published for 'L06'"),
        ("requests", request_row(event_offsets_s=[0.1, float("inf")]), "expected a list of finite numbers"),
        ("requests", request_row(event_offsets_s=[0.1, None]), "expected a list of finite numbers"),
        ("cost_records", cost_row(ListCost=0.5), "row 1: ListCost=0.5: expected DECIMAL(18,9)"),
        ("cost_records", cost_row(ListCost=Decimal("1e-10")), "ListCost=Decimal('1E-10'): expected DECIMAL(18,9)"),
        (
            "cost_records",
            cost_row(ListCost=None),
            "row 1: {'ListUnitPrice': Decimal('0.526000'), 'ListCost': None}",
        ),
        ("load_stages", stage_row(provenance="measured"), "row 1: {'engine': 'modelled-vllm', 'time_scale': 5.0"),
        (
            "metric_summaries",
            summary_row(status="gap"),
            "breaks the rule ((status = 'gap') = (\"value\" IS NULL))",
        ),
    ],
)
def test_a_wrong_row_is_refused_by_table_row_and_column(
    warehouse: Warehouse, table: str, row: dict[str, Any], said: str
) -> None:
    good = {
        "events": event_row,
        "requests": request_row,
        "cost_records": cost_row,
        "load_stages": stage_row,
        "metric_summaries": summary_row,
    }[table]()
    message = refusal(warehouse, table, good, row)
    assert message.startswith(f"{table}: row 1")
    assert said in message


def test_missing_and_unknown_columns_are_named(warehouse: Warehouse) -> None:
    row = event_row(colour="red")
    del row["detail"], row["outcome"]
    message = refusal(warehouse, "events", event_row(), row)
    assert "row 1 lacks outcome, detail (give None where nothing is known)" in message
    assert "has colour, which events.sql doesn't know" in message


def test_an_unknown_table_and_a_name_that_leaves_the_folder_are_refused(warehouse: Warehouse) -> None:
    assert "there is no table 'request'" in refusal(warehouse, "request", request_row())
    assert "run_id='../x' can't be part of a path" in refusal(warehouse, "events", run_id="../x")
    assert "part='a/b' can't be part of a path" in refusal(warehouse, "events", part="a/b")


def test_publishing_the_same_again_changes_nothing(warehouse: Warehouse) -> None:
    path = publish(warehouse, "events", event_row())
    before = path.read_bytes(), path.stat().st_mtime_ns
    later = event_row(recorded_at=datetime.now(UTC))
    assert publish(warehouse, "events", later) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_publishing_something_else_under_the_same_name_is_refused(warehouse: Warehouse) -> None:
    path = publish(warehouse, "events", event_row())
    before = path.read_bytes()
    with pytest.raises(WarehouseError, match="exists with other rows, and the lake never overwrites"):
        publish(warehouse, "events", event_row(duration_s=1.0))
    assert path.read_bytes() == before


def test_ten_thousand_requests_with_256_events_each_are_published_whole(warehouse: Warehouse) -> None:
    offsets = [0.3 + 0.04 * n for n in range(256)]
    publish(warehouse, "requests", *(request_row(request_id=str(n), event_offsets_s=offsets) for n in range(10_000)))
    assert warehouse.query(
        "SELECT count(*) AS n, count(DISTINCT request_id) AS ids, sum(len(event_offsets_s))::INT AS events "
        "FROM requests"
    ) == [{"n": 10_000, "ids": 10_000, "events": 2_560_000}]


def test_the_newest_run_is_the_one_that_was_recorded_last(warehouse: Warehouse) -> None:
    for run_id, minute in (("b", 1), ("a", 5), ("c", 3)):
        row = event_row(run_id=run_id, recorded_at=REQUESTED_AT + timedelta(minutes=minute))
        publish(warehouse, "events", row, run_id=run_id)
    assert warehouse.latest_run_id("events", "L06", "local") == "a"
    assert warehouse.latest_run_id("events", "L06", "local", prefer="c") == "c"
    assert warehouse.latest_run_id("events", "L06", "local", prefer="not there") == "a"
    assert warehouse.latest_run_id("events", "L06", "aks") is None
    assert warehouse.latest_run_id("events", "L07", "local") is None


def test_wrong_sql_is_one_clear_error(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="requestz"):
        warehouse.query("FROM requestz")
    with pytest.raises(WarehouseError, match="several columns named lab; rename with AS"):
        warehouse.query("SELECT a.lab, b.lab FROM events a CROSS JOIN events b")


def test_parameters_fill_the_question_marks(warehouse: Warehouse) -> None:
    publish(warehouse, "events", event_row(name="o'clock"))
    assert warehouse.query("SELECT name FROM events WHERE name = ?", ["o'clock"]) == [{"name": "o'clock"}]
    assert len(warehouse.frame("FROM events WHERE name = ?", ["other"])) == 0


def test_a_damaged_file_is_named_and_no_number_is_given_without_it(warehouse: Warehouse) -> None:
    good = publish(warehouse, "events", event_row(run_id="good"), run_id="good")
    bad = publish(warehouse, "events", event_row(run_id="bad"), run_id="bad")
    snapshot = warehouse.rebuild()
    before = snapshot.read_bytes()
    bad.write_bytes(bad.read_bytes()[:-20])
    for ask in (lambda: warehouse.query("SELECT count(*) FROM events"), warehouse.rebuild):
        with pytest.raises(WarehouseError) as caught:
            ask()
        assert str(bad) in str(caught.value)
        assert str(good) not in str(caught.value)
    assert snapshot.read_bytes() == before, "a failed rebuild leaves the former snapshot"
    assert [p.name for p in Path(warehouse.data_dir).iterdir() if p.name.endswith(".tmp")] == []


def test_a_question_within_a_run_or_a_lab_sees_its_rows_alone(warehouse: Warehouse) -> None:
    for lab, run_id, part in (("L06", "a", None), ("L06", "a", "more"), ("L06", "a-b", None), ("L07", "c", None)):
        publish(warehouse, "events", event_row(lab=lab, run_id=run_id), lab=lab, run_id=run_id, part=part)

    def runs(**within: Unpack[Within]) -> list[str]:
        return [row["run_id"] for row in warehouse.query("SELECT run_id FROM events ORDER BY 1", within=within)]

    assert runs() == ["a", "a", "a-b", "c"]
    assert runs(run_id="a") == ["a", "a"], "a run whose name goes on is another run"
    assert runs(run_id="a-b") == ["a-b"]
    assert runs(lab="L06", target="local") == ["a", "a", "a-b"]
    assert runs(lab="L06", target="aks") == runs(run_id="nobody") == runs(run_id="*") == runs(lab="../L06") == []


def test_another_runs_damage_stops_no_question_within_a_run(warehouse: Warehouse) -> None:
    publish(warehouse, "events", event_row(run_id="good"), run_id="good")
    bad = publish(warehouse, "events", event_row(run_id="bad"), run_id="bad")
    bad.write_bytes(bad.read_bytes()[:-20])
    assert warehouse.query("SELECT run_id FROM events", within={"run_id": "good"}) == [{"run_id": "good"}]
    with pytest.raises(WarehouseError, match=bad.name):
        warehouse.query("SELECT run_id FROM events", within={"run_id": "bad"})


def test_a_file_damaged_inside_is_named(warehouse: Warehouse) -> None:
    new = [request_row(request_id=str(n), error=f"e{n * 7919}") for n in range(2000)]
    path = publish(warehouse, "requests", *new)
    content = bytearray(path.read_bytes())
    content[40 : len(content) // 2] = b"\x00" * (len(content) // 2 - 40)
    path.write_bytes(content)
    with pytest.raises(WarehouseError, match=path.name):
        warehouse.query("FROM requests")


def test_a_copied_or_foreign_file_is_refused_instead_of_counted(warehouse: Warehouse) -> None:
    path = publish(warehouse, "events", event_row())
    copy = path.with_name("copy.parquet")
    shutil.copy(path, copy)
    with pytest.raises(WarehouseError, match=rf"copy\.parquet says that it is events/.*{RUN_ID}"):
        warehouse.query("FROM events")
    copy.unlink()
    pd.DataFrame({"lab": ["L06"]}).to_parquet(copy)
    with pytest.raises(WarehouseError, match=r"copy\.parquet was not written by this warehouse"):
        warehouse.rebuild()


def test_a_column_added_later_is_null_in_older_files(tmp_path: Path, warehouse: Warehouse) -> None:
    publish(warehouse, "events", event_row(run_id="old"), run_id="old")
    schema = tmp_path / "schema"
    shutil.copytree(SCHEMA, schema)
    ddl = (schema / "events.sql").read_text()
    (schema / "events.sql").write_text(ddl.replace("    detail ", "    colour VARCHAR,\n    detail "))
    later = Warehouse(data_dir=warehouse.data_dir, schema_dir=str(schema), views_dir=warehouse.views_dir)
    expected = [{"run_id": "old", "colour": None}]
    assert later.query("SELECT run_id, colour FROM events") == expected
    publish(later, "events", {**event_row(run_id="new"), "colour": "red"}, run_id="new")
    expected.append({"run_id": "new", "colour": "red"})
    assert later.query("SELECT run_id, colour FROM events ORDER BY colour NULLS FIRST") == expected
    with open_snapshot(later.rebuild()) as snapshot:
        assert len(snapshot.execute("FROM events").fetchall()) == 2


def test_a_file_that_no_longer_meets_the_contract_is_named(tmp_path: Path, warehouse: Warehouse) -> None:
    path = publish(warehouse, "events", event_row())
    schema = tmp_path / "schema"
    shutil.copytree(SCHEMA, schema)
    ddl = (schema / "events.sql").read_text()

    (schema / "events.sql").write_text(ddl.replace("    detail ", "    colour VARCHAR NOT NULL,\n    detail "))
    later = Warehouse(data_dir=warehouse.data_dir, schema_dir=str(schema), views_dir=warehouse.views_dir)
    with pytest.raises(WarehouseError, match=rf"{path.name} lacks colour"):
        later.query("FROM events")

    stricter = tmp_path / "stricter"
    shutil.copytree(SCHEMA, stricter)
    (stricter / "events.sql").write_text(
        ddl.replace("duration_s      DOUBLE NOT NULL", "duration_s DOUBLE CHECK (duration_s < 1)")
    )
    later = Warehouse(data_dir=warehouse.data_dir, schema_dir=str(stricter), views_dir=warehouse.views_dir)
    with pytest.raises(WarehouseError, match=rf"{path.name} breaks a rule of events.sql"):
        later.rebuild()


def test_a_contract_that_files_cannot_keep_is_refused(tmp_path: Path) -> None:
    schema = tmp_path / "schema"
    schema.mkdir()
    (schema / "events.sql").write_text("CREATE TABLE events (lab VARCHAR, name VARCHAR, UNIQUE (lab, name))")
    with pytest.raises(WarehouseError, match=r"events\.sql: UNIQUE\(lab, \"?name\"?\): a file's rows can be held to"):
        contract(schema)


def test_views_may_use_one_another_in_any_order(warehouse: Warehouse) -> None:
    views = Path(warehouse.views_dir)
    (views / "a.sql").write_text("CREATE VIEW a AS SELECT n + 1 AS n FROM b")
    (views / "b.sql").write_text("CREATE VIEW b AS SELECT count(*) AS n FROM events")
    publish(warehouse, "events", event_row())
    assert warehouse.query("FROM a") == [{"n": 2}]
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("FROM a").fetchall() == [(2,)]
    (views / "c.sql").write_text("CREATE VIEW c AS FROM nowhere")
    assert warehouse.query("FROM a") == [{"n": 2}]  # a question meets only the views that it names
    for ask in (lambda: warehouse.query("FROM c"), warehouse.rebuild):
        with pytest.raises(WarehouseError, match=r"c\.sql.*nowhere"):
            ask()


def test_two_threads_ask_at_once_and_see_their_own_answers(warehouse: Warehouse) -> None:
    publish(warehouse, "events", event_row())
    with ThreadPoolExecutor(4) as threads:
        answers = list(
            threads.map(lambda n: warehouse.query("SELECT ?::INT + count(*) AS n FROM events", [n]), range(40))
        )
    assert answers == [[{"n": n + 1}] for n in range(40)]


def test_the_projects_own_views_stand_on_the_tables(tmp_path: Path) -> None:
    warehouse = warehouse_in(tmp_path)
    run = lab_run()
    publish_run(warehouse, run)
    table = warehouse.query("SELECT users, requests FROM stage_table ORDER BY stage")
    assert table == [{"users": s["users"], "requests": s["requests_in_stage"]} for s in run["load_stages"]]


def test_a_snapshot_is_read_only_in_utc_and_reaches_no_other_file(tmp_path: Path, warehouse: Warehouse) -> None:
    import duckdb

    with pytest.raises(WarehouseError, match="does not exist yet"):
        open_snapshot(warehouse.snapshot_path)
    publish(warehouse, "events", event_row())
    other = tmp_path / "secret.csv"
    other.write_text("a\n1\n")
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)
        assert snapshot.execute("SELECT count(*) FROM events").fetchone() == (1,)
        for sql in (
            "DELETE FROM events",
            f"FROM read_csv('{other}')",
            f"COPY events TO '{tmp_path / 'out.csv'}'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                snapshot.execute(sql)
    warehouse.snapshot_path.write_bytes(b"not a database")
    with pytest.raises(WarehouseError, match="delete it and rebuild"):
        open_snapshot(warehouse.snapshot_path)
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert snapshot.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_reader_keeps_its_snapshot_while_a_new_one_is_swapped_in(warehouse: Warehouse) -> None:
    publish(warehouse, "events", event_row(run_id="a"), run_id="a")
    with open_snapshot(warehouse.rebuild()) as reader:
        publish(warehouse, "events", event_row(run_id="b"), run_id="b")
        former = warehouse.snapshot_path.stat().st_ino
        warehouse.rebuild()
        assert warehouse.snapshot_path.stat().st_ino != former, "another file took its place; the open one is untouched"
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
    with open_snapshot(warehouse.snapshot_path) as reader:
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_a_folder_whose_name_looks_like_a_pattern_is_no_pattern(tmp_path: Path) -> None:
    odd = tmp_path / "it's [a] *odd* place"
    odd.mkdir()
    warehouse = warehouse_in(odd)
    publish(warehouse, "events", event_row())
    assert warehouse.query("SELECT count(*) AS n FROM events") == [{"n": 1}]
    assert warehouse.rebuild().exists()
