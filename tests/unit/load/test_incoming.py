"""Records of a load's pods on their way through a lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from resources.contract import WarehouseError
from resources.lake_remote import RemoteFiles
from resources.load_incoming import FOLDER, fetch, folder_of, put, sweep
from resources.load_records import read_result
from tests.unit.load.test_merge import write

NOW = datetime(2026, 11, 28, 14, 0, tzinfo=UTC)
INCOMING = folder_of("0a1b", now=NOW)


@pytest.fixture
def lake(tmp_path: Path) -> RemoteFiles:
    return RemoteFiles(f"file://{tmp_path}/lake")


@pytest.fixture
def back(tmp_path: Path) -> Path:
    folder = tmp_path / "back"
    folder.mkdir()
    return folder


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


def test_what_the_pods_bring_is_merged_as_if_one_machine_had_written_it(
    tmp_path: Path, lake: RemoteFiles, back: Path
) -> None:
    for pod, records in split(tmp_path).items():
        put(lake, INCOMING, f"load-0a1b-{pod}-x7k2p", records)
    assert fetch(lake, INCOMING, back) == [f"load-0a1b-{pod}-x7k2p" for pod in ("master", "worker-0", "worker-1")]
    assert read_result(back) == read_result(tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_a_pods_records_are_one_parquet_file_below_the_lake(tmp_path: Path, lake: RemoteFiles) -> None:
    assert put(lake, INCOMING, "pod-1", split(tmp_path)["worker-0"]) == 5
    [path] = [path for path in tmp_path.glob("lake/**/*") if path.is_file()]
    assert path.relative_to(tmp_path / "lake") == Path(FOLDER, f"{int(NOW.timestamp())}-0a1b", "pod-1.parquet")
    files = set(pq.read_table(path).column("file").to_pylist())
    assert files == {"worker-0.process.ndjson", "worker-0.requests.ndjson"}


def test_lines_of_every_language_and_more_than_a_batch_come_back_as_they_were(
    tmp_path: Path, lake: RemoteFiles, back: Path
) -> None:
    (tmp_path / "records").mkdir()
    written = "".join(f'{{"number": {number}, "error": "größer\u2028als"}}\n' for number in range(4321))
    (tmp_path / "records" / "worker-0.requests.ndjson").write_text(written, encoding="utf-8")
    put(lake, INCOMING, "pod-1", tmp_path / "records")
    fetch(lake, INCOMING, back)
    assert (back / "worker-0.requests.ndjson").read_text(encoding="utf-8") == written


def test_two_pods_with_the_same_file_are_not_one_load(tmp_path: Path, lake: RemoteFiles, back: Path) -> None:
    records = split(tmp_path)["worker-0"]
    for pod in ("pod-1", "pod-2"):
        put(lake, INCOMING, pod, records)
    with pytest.raises(WarehouseError, match=r"pod-2\.parquet is no part of this load: .*worker-0\.process\.ndjson"):
        fetch(lake, INCOMING, back)


def test_what_a_pod_brought_is_never_overwritten(tmp_path: Path, lake: RemoteFiles) -> None:
    records = split(tmp_path)["worker-0"]
    put(lake, INCOMING, "pod-1", records)
    with pytest.raises(WarehouseError, match=r"pod-1\.parquet exists"):
        put(lake, INCOMING, "pod-1", records)


def test_a_name_that_is_no_record_files_is_not_written_anywhere(tmp_path: Path, lake: RemoteFiles, back: Path) -> None:
    folder = tmp_path / "lake" / INCOMING
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"file": ["../escaped.ndjson"], "line": ["{}"]}), folder / "pod-1.parquet")
    with pytest.raises(WarehouseError, match=r"'\.\./escaped\.ndjson' is no record file"):
        fetch(lake, INCOMING, back)
    assert not (tmp_path / "escaped.ndjson").exists()


def test_a_load_that_left_nothing_has_no_pods_and_nothing_to_remove(lake: RemoteFiles, back: Path) -> None:
    assert fetch(lake, INCOMING, back) == []
    lake.remove(INCOMING)
    assert sweep(lake, now=NOW) == []


def test_what_a_dead_process_left_goes_after_a_day_and_nothing_else_does(tmp_path: Path, lake: RemoteFiles) -> None:
    old, young = NOW - timedelta(hours=25), NOW - timedelta(hours=23)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "stages.ndjson").write_text("{}\n")
    for load_id, at in (("aa", old), ("bb", young)):
        put(lake, folder_of(load_id, now=at), "pod-1", tmp_path / "records")
    lake.create(f"{FOLDER}/somebody-elses/file", b"x")
    lake.create("requests/target=aks/lab=L06/run.parquet", b"x")
    assert sweep(lake, now=NOW) == [f"{int(old.timestamp())}-aa"]
    assert sorted(path.name for path in (tmp_path / "lake" / FOLDER).iterdir()) == [
        f"{int(young.timestamp())}-bb",
        "somebody-elses",
    ]
    assert lake.sizes("requests") == {"requests/target=aks/lab=L06/run.parquet": 1}
