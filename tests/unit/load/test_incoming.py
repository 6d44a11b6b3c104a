"""Records of a load's pods on their way through a lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from resources.load_incoming import FOLDER, IncomingError, fetch, folder_of, put, remove, sweep
from resources.load_records import read_result
from tests.unit.load.test_merge import write

NOW = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)


def split(folder: Path) -> dict[str, Path]:
    """The files of a load of two workers, as each of its pods has its own."""
    (folder / "whole").mkdir()
    write(folder / "whole")
    pods = {name: folder / name for name in ("master", "worker-0", "worker-1")}
    for name, own in pods.items():
        own.mkdir()
        for path in (folder / "whole").iterdir():
            if path.name.startswith(name) or (name == "master" and path.name == "stages.ndjson"):
                (own / path.name).write_bytes(path.read_bytes())
    return pods


def test_what_the_pods_bring_is_merged_as_if_one_machine_had_written_it(tmp_path: Path) -> None:
    incoming = folder_of(f"file://{tmp_path}/lake/", "0a1b", now=NOW)
    for pod, records in split(tmp_path).items():
        put(incoming, f"load-0a1b-{pod}-x7k2p", records)
    back = tmp_path / "back"
    back.mkdir()
    assert fetch(incoming, back) == [f"load-0a1b-{pod}-x7k2p" for pod in ("master", "worker-0", "worker-1")]
    assert read_result(back) == read_result(tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_a_pods_records_are_one_parquet_file_below_the_lake(tmp_path: Path) -> None:
    incoming = folder_of(f"file://{tmp_path}/lake", "0a1b", now=NOW)
    pods = split(tmp_path)
    assert put(incoming, "pod-1", pods["worker-0"]) == 5
    [path] = [path for path in tmp_path.glob("lake/**/*") if path.is_file()]
    assert path.relative_to(tmp_path / "lake") == Path(FOLDER, f"{int(NOW.timestamp())}-0a1b", "pod-1.parquet")
    assert set(pq.read_table(path).column("file").to_pylist()) == {
        "worker-0.process.ndjson",
        "worker-0.requests.ndjson",
    }


def test_lines_of_every_language_and_more_than_a_batch_come_back_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    written = "".join(f'{{"number": {number}, "error": "größer\u2028als"}}\n' for number in range(4321))
    (tmp_path / "records" / "worker-0.requests.ndjson").write_text(written, encoding="utf-8")
    put(f"file://{tmp_path}/in", "pod-1", tmp_path / "records")
    (tmp_path / "back").mkdir()
    fetch(f"file://{tmp_path}/in", tmp_path / "back")
    assert (tmp_path / "back" / "worker-0.requests.ndjson").read_text(encoding="utf-8") == written


def test_two_pods_with_the_same_file_are_not_one_load(tmp_path: Path) -> None:
    records = split(tmp_path)["worker-0"]
    for pod in ("pod-1", "pod-2"):
        put(f"file://{tmp_path}/in", pod, records)
    (tmp_path / "back").mkdir()
    with pytest.raises(IncomingError, match=r"FileExistsError.*worker-0\.process\.ndjson"):
        fetch(f"file://{tmp_path}/in", tmp_path / "back")


def test_a_name_that_is_no_record_files_is_not_written_anywhere(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"file": ["../escaped.ndjson"], "line": ["{}"]}), tmp_path / "in" / "pod-1.parquet")
    (tmp_path / "back").mkdir()
    with pytest.raises(IncomingError, match=r"'\.\./escaped\.ndjson' is no record file"):
        fetch(f"file://{tmp_path}/in", tmp_path / "back")
    assert not (tmp_path / "escaped.ndjson").exists()


def test_a_load_that_left_nothing_has_no_pods_and_nothing_to_remove(tmp_path: Path) -> None:
    incoming = folder_of(f"file://{tmp_path}/lake", "0a1b", now=NOW)
    assert fetch(incoming, tmp_path) == []
    remove(incoming)
    assert sweep(f"file://{tmp_path}/lake", now=NOW) == []


def test_what_a_dead_process_left_goes_after_a_day_and_nothing_else_does(tmp_path: Path) -> None:
    lake = f"file://{tmp_path}/lake"
    old, young = NOW - timedelta(hours=25), NOW - timedelta(hours=23)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "stages.ndjson").write_text("{}\n")
    for load_id, at in (("aa", old), ("bb", young)):
        put(folder_of(lake, load_id, now=at), "pod-1", tmp_path / "records")
    (tmp_path / "lake" / FOLDER / "somebody-elses").mkdir()
    (tmp_path / "lake" / "requests").mkdir()
    assert sweep(lake, now=NOW) == [f"{int(old.timestamp())}-aa"]
    assert sorted(path.name for path in (tmp_path / "lake" / FOLDER).iterdir()) == [
        f"{int(young.timestamp())}-bb",
        "somebody-elses",
    ]
    assert (tmp_path / "lake" / "requests").exists()


def test_a_store_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncomingError, match=r"nowhere://lake/in: ValueError: Protocol not known: nowhere"):
        put("nowhere://lake/in", "pod-1", tmp_path)
