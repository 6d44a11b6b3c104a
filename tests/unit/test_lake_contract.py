"""One suite for every place where a lake can be: a folder, fsspec's files and memory, Azure's Blob protocol.

What holds for a folder holds for the others; what only a mirror can get wrong comes after it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resources.contract import WarehouseError
from resources.lake import Lake
from resources.lake_remote import MirroredLake, RemoteFiles, open_lake
from resources.warehouse import Warehouse
from tests.support.blob_service import BlobService
from tests.support.rows.common import RUN_ID
from tests.support.rows.runs import lab_run
from tests.support.rows.sessions import event_row
from tests.support.warehouses import publish_run

SCHEMA = Path(Warehouse(data_dir="unused").schema_dir)
Place = Callable[[str], Lake]
"""The lake as the machine of that name sees it."""


@pytest.fixture
def memory_url() -> Iterator[str]:
    url = f"memory://lake-{uuid.uuid4().hex}"
    yield url
    files, path = fsspec.url_to_fs(url)
    if files.exists(path):
        files.rm(path, recursive=True)


@pytest.fixture
def azure_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with BlobService() as service:
        # A key that is known to all, as of any emulator; the double doesn't check signatures.
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", service.connection_string)
        yield f"abfss://lake@account.dfs.core.windows.net/{uuid.uuid4().hex}"


@pytest.fixture(params=["folder", "files", "memory", "azure"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return lambda machine: open_lake((tmp_path / "shared").as_uri(), tmp_path / machine, SCHEMA)
    if request.param == "files":
        remote = RemoteFiles((tmp_path / "shared").as_uri())
        return lambda machine: MirroredLake(remote, tmp_path / machine, SCHEMA)
    url = request.getfixturevalue(f"{request.param}_url")
    return lambda machine: open_lake(url, tmp_path / machine, SCHEMA)


def publish(lake: Lake, row: dict[str, Any], **where: str) -> Path:
    return lake.publish("events", [row], **{"target": "local", "lab": "L06", "run_id": RUN_ID} | where)


def listed(lake: Lake, **within: str) -> list[str]:
    found = lake.files(lake.table("events"), within or None)  # pyright: ignore[reportArgumentType]
    return [path.relative_to(lake.root).as_posix() for path in found]


def test_an_empty_lake_has_no_file(place: Place) -> None:
    assert listed(place("here")) == []
    assert listed(place("here"), target="local", lab="L06") == []


def test_what_one_machine_publishes_another_reads(place: Place) -> None:
    path = publish(place("here"), event_row())
    elsewhere = place("elsewhere")
    (name,) = listed(elsewhere)
    assert name == f"events/target=local/lab=L06/{RUN_ID}.parquet"
    assert (elsewhere.root / name).read_bytes() == path.read_bytes()
    assert "started_at" in elsewhere.columns(elsewhere.table("events"), elsewhere.root / name)


def test_publishing_the_same_again_is_welcome_from_any_machine(place: Place) -> None:
    publish(place("here"), event_row())
    for machine in ("here", "elsewhere"):
        assert publish(place(machine), event_row(recorded_at=datetime.now(UTC))).exists()
    assert len(listed(place("third"))) == 1


def test_a_name_is_taken_by_whoever_was_first_and_is_never_written_again(place: Place) -> None:
    published = publish(place("here"), event_row(outcome="ok")).read_bytes()
    with pytest.raises(WarehouseError, match=r"exists with other rows, and the lake never overwrites"):
        publish(place("elsewhere"), event_row(outcome="failed"))
    third = place("third")
    (name,) = listed(third)
    assert (third.root / name).read_bytes() == published


def test_a_question_about_a_run_a_lab_or_a_target_opens_their_files_alone(place: Place) -> None:
    lake = place("here")
    publish(lake, event_row())
    publish(lake, event_row(), part="load")
    publish(lake, event_row(lab="L05"), lab="L05")
    publish(lake, event_row(run_id="other"), run_id="other")
    here = f"events/target=local/lab=L06/{RUN_ID}"
    elsewhere = place("elsewhere")
    assert listed(elsewhere, target="local", lab="L06", run_id=RUN_ID) == [
        f"{here}-load.parquet",
        f"{here}.parquet",
    ]
    assert listed(elsewhere, lab="L05") == [f"events/target=local/lab=L05/{RUN_ID}.parquet"]
    assert len(listed(elsewhere, run_id="other")) == 1
    assert listed(elsewhere, target="../secrets") == []
    assert len(listed(elsewhere)) == 4


def test_a_file_that_is_not_where_it_says_is_found_out(place: Place, tmp_path: Path) -> None:
    lake = place("here")
    content = publish(lake, event_row()).read_bytes()
    _put(lake, "events/target=local/lab=L06/copy.parquet", content)
    with pytest.raises(WarehouseError, match=r"/copy\.parquet says that it is events/target=local/lab=L06/") as raised:
        listed(lake)
    if isinstance(lake, MirroredLake):  # the place to mend, not the mirror
        assert str(lake.root) not in str(raised.value)


def test_a_damaged_file_is_named(place: Place) -> None:
    lake = place("here")
    publish(lake, event_row())
    _put(lake, "events/target=local/lab=L06/damaged.parquet", b"PAR1 and then nothing")
    with pytest.raises(WarehouseError, match=r"damaged\.parquet can't be read as Parquet"):
        listed(lake)
    assert len(lake.find_damage()) == 1


def _put(lake: Lake, name: str, content: bytes) -> None:
    if isinstance(lake, MirroredLake):
        assert lake.remote.create(name, content)
    else:
        (lake.root / name).write_bytes(content)


# --- The mirror ---


@pytest.fixture(params=["files", "memory", "azure"])
def mirrored(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], MirroredLake]:
    url = (
        (tmp_path / "shared").as_uri() if request.param == "files" else request.getfixturevalue(f"{request.param}_url")
    )
    remote = RemoteFiles(url)
    return lambda machine: MirroredLake(remote, tmp_path / machine, SCHEMA)


def test_a_mirrored_file_is_fetched_once(
    mirrored: Callable[[str], MirroredLake], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(mirrored("here"), event_row())
    publish(mirrored("here"), event_row(), part="load")
    elsewhere, fetched, read = mirrored("elsewhere"), list[str](), RemoteFiles.read
    monkeypatch.setattr(RemoteFiles, "read", lambda self, paths: fetched.extend(paths) or read(self, paths))
    for _ in range(3):
        assert len(listed(elsewhere)) == 2
    assert len(fetched) == 2
    assert len(listed(mirrored("here"))) == 2  # who published it has it
    assert len(fetched) == 2


def test_a_mirror_that_lost_or_cut_a_file_fetches_it_again(mirrored: Callable[[str], MirroredLake]) -> None:
    whole = publish(mirrored("here"), event_row()).read_bytes()
    lake = mirrored("here")
    (name,) = listed(lake)
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(whole[:100])):
        spoil(lake.root / name)
        assert listed(lake) == [name]
        assert (lake.root / name).read_bytes() == whole


def test_what_only_the_mirror_has_does_not_count(mirrored: Callable[[str], MirroredLake]) -> None:
    lake = mirrored("here")
    published = publish(lake, event_row())
    published.with_name("of-a-former-lake.parquet").write_bytes(published.read_bytes())
    assert listed(lake) == [f"events/target=local/lab=L06/{RUN_ID}.parquet"]


def test_the_warehouse_answers_and_keeps_a_copy_for_people_from_a_lake_elsewhere(
    memory_url: str, tmp_path: Path
) -> None:
    here = Warehouse(data_dir=str(tmp_path / "here"), lake_url=memory_url)
    publish_run(here, lab_run())
    elsewhere = Warehouse(data_dir=str(tmp_path / "elsewhere"), lake_url=memory_url)
    assert elsewhere.latest_run_id("requests", "L06", "local") == RUN_ID
    stages = elsewhere.query("SELECT users, requests FROM stage_table ORDER BY users")
    assert stages == here.query("SELECT users, requests FROM stage_table ORDER BY users") != []
    assert elsewhere.rebuild().exists()
    assert not (tmp_path / "elsewhere" / "lake").exists()


def test_azure_is_asked_to_create_by_one_conditional_request(azure_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RemoteFiles(azure_url)
    asked = list[tuple[str, str | None]]()
    answer = BlobService.note
    monkeypatch.setattr(BlobService, "note", lambda self, *one: asked.append(one) or answer(self, *one))
    assert files.create("events/a.parquet", b"first") is True
    assert files.create("events/a.parquet", b"second") is False
    assert asked == [("PUT", "*")] * 2
    assert files.read(["events/a.parquet"]) == {"events/a.parquet": b"first"}


def test_a_lake_that_cannot_be_reached_says_so_in_one_line_without_a_credential(tmp_path: Path) -> None:
    with pytest.raises(
        WarehouseError, match=r"the lake carrier-pigeon://roof can't be reached: .*; check LABS_LAKE_URL"
    ):
        open_lake("carrier-pigeon://roof", tmp_path, SCHEMA)
    with pytest.raises(WarehouseError, match=r"the lake s3://bucket/lake .*; install the URL's driver") as raised:
        open_lake("s3://bucket/lake", tmp_path, SCHEMA)
    assert "\n" not in str(raised.value)
