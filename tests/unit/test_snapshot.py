"""labs.duckdb holds what the lake holds, whatever became of it, of the lake or of the contract since it was made."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb
import pytest

from resources.contract import WarehouseError
from resources.warehouse import Warehouse, open_snapshot
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import event_row
from tests.support.warehouses import publish_run, warehouse_in


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """With one run in the lake and in labs.duckdb, and views of its own."""
    whole = warehouse_in(tmp_path)
    shutil.copytree(whole.views_dir, tmp_path / "views")
    warehouse = Warehouse(data_dir=whole.data_dir, views_dir=str(tmp_path / "views"))
    publish(warehouse, "first")
    warehouse.rebuild()
    return warehouse


def publish(warehouse: Warehouse, run_id: str) -> Path:
    return warehouse.publish("events", [event_row(run_id=run_id)], target="local", lab="L06", run_id=run_id)


def runs(warehouse: Warehouse) -> list[str]:
    with open_snapshot(warehouse.rebuild()) as snapshot:
        return [run_id for (run_id,) in snapshot.execute("SELECT run_id FROM events ORDER BY 1").fetchall()]


def test_it_takes_in_what_was_published_since_and_reads_nothing_else(warehouse: Warehouse) -> None:
    [first] = Path(warehouse.data_dir).rglob("first*.parquet")
    status = first.stat()
    content = bytearray(first.read_bytes())
    content[4:40] = bytes(36)
    first.write_bytes(content)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))  # nobody could tell but by reading it
    publish(warehouse, "second")
    assert runs(warehouse) == ["first", "second"]


def test_step_by_step_it_holds_the_same_as_made_at_once(warehouse: Warehouse) -> None:
    run = lab_run()
    publish_run(warehouse, run)
    step_by_step = everything(warehouse)
    warehouse.snapshot_path.unlink()
    assert everything(warehouse) == step_by_step
    assert len(step_by_step["requests"]) == len(run["requests"])


def everything(warehouse: Warehouse) -> dict[str, list[str]]:
    """Every table and view, its rows in some order of their own."""
    with open_snapshot(warehouse.rebuild()) as snapshot:
        names = snapshot.execute("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall()
        return {name: sorted(map(repr, snapshot.execute(f'FROM "{name}"').fetchall())) for (name,) in names}


def test_what_somebody_else_wrote_to_it_is_gone(warehouse: Warehouse) -> None:
    with duckdb.connect(str(warehouse.snapshot_path)) as theirs:
        theirs.execute("UPDATE events SET run_id = 'edited'; CREATE TABLE notes (text VARCHAR)")
    assert runs(warehouse) == ["first"]
    with open_snapshot(warehouse.snapshot_path) as snapshot:
        assert snapshot.execute("FROM duckdb_tables() WHERE table_name = 'notes'").fetchall() == []


def test_a_file_moved_out_of_the_lake_is_gone_from_it(warehouse: Warehouse) -> None:
    second = publish(warehouse, "second")
    assert runs(warehouse) == ["first", "second"]
    second.unlink()
    assert runs(warehouse) == ["first"]


def test_a_file_put_back_with_other_rows_is_read_again(warehouse: Warehouse) -> None:
    second = publish(warehouse, "second")
    assert runs(warehouse) == ["first", "second"]
    second.unlink()
    warehouse.publish("events", [event_row(run_id="second")] * 2, target="local", lab="L06", run_id="second")
    assert runs(warehouse) == ["first", "second", "second"]


def test_changed_tables_and_views_are_seen(warehouse: Warehouse) -> None:
    view = Path(warehouse.views_dir) / "99_latest_event.sql"
    view.write_text("CREATE VIEW latest_event AS SELECT max(ended_at) AS at FROM events")
    with open_snapshot(warehouse.rebuild()) as snapshot:
        assert len(snapshot.execute("FROM latest_event").fetchall()) == 1
    view.unlink()
    schema = Path(warehouse.data_dir) / "later"
    shutil.copytree(warehouse.schema_dir, schema)
    events = schema / "events.sql"
    events.write_text(events.read_text().replace("    detail ", "    colour VARCHAR,\n    detail "))
    later = Warehouse(data_dir=warehouse.data_dir, schema_dir=str(schema), views_dir=warehouse.views_dir)
    with open_snapshot(later.rebuild()) as snapshot:
        assert "colour" in [column[0] for column in snapshot.execute("FROM events").description or []]
        with pytest.raises(duckdb.CatalogException):
            snapshot.execute("FROM latest_event")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": {}}'])
def test_a_record_that_tells_nothing_costs_nothing_but_time(warehouse: Warehouse, content: str) -> None:
    [record] = Path(warehouse.data_dir).glob(".labs.duckdb.*.json")
    record.write_text(content)
    publish(warehouse, "second")
    assert runs(warehouse) == ["first", "second"]


def test_a_data_folder_that_can_t_be_made_is_told_by_name_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match=r"file/data can't be made \(Not a directory\); .*LABS_DATA_DIR"):
        Warehouse(data_dir=str(tmp_path / "file" / "data")).rebuild()
