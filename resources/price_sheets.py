"""Where refreshed price sheets are kept, so that every machine of a deployment finds them.

Belongs here: keeping a sheet, and bringing the newest one to this machine.
Doesn't belong here: how sheets lie over one another (lab_pipelines/catalog/prices_stored.py), where they come from
(retail_prices.py).

A pod's data folder ends with the pod. With a lake at a URL the sheets are in its folder `_prices`, and the data folder
has copies; a sheet never changes, so a copy can't be out of date.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lab_pipelines.catalog.prices import PriceSheet
from lab_pipelines.catalog.prices_stored import as_file, newest_in, prices_in, sheet_path
from lab_pipelines.files import new_file

if TYPE_CHECKING:
    from resources.lake_remote import RemoteFiles

REMOTE_FOLDER = "_prices"
"""Beside the lake's tables; no table is called that."""


def known_prices(data_dir: Path | str, lake_url: str | None) -> PriceSheet:
    """All prices that the deployment knows. Raises `SpecError` of a damaged sheet, `WarehouseError`."""
    newest_sheet(data_dir, lake_url)
    return prices_in(data_dir)


def newest_sheet(data_dir: Path | str, lake_url: str | None) -> Path | None:
    """The newest refreshed sheet on this machine, fetched first where the lake has a newer one; None: there is none."""
    if lake_url is not None:
        remote = _remote(lake_url)
        newest = max(remote.sizes(REMOTE_FOLDER), default=None)
        if newest is not None and not sheet_path(data_dir, Path(newest).name).exists():
            _keep(sheet_path(data_dir, Path(newest).name), remote.read([newest])[newest])
    return newest_in(data_dir)


def keep_sheet(sheet: PriceSheet, data_dir: Path | str, lake_url: str | None) -> Path:
    """Keep a refreshed sheet for every machine of the deployment; its path on this one. Raises `WarehouseError`."""
    name, content = as_file(sheet)
    if lake_url is not None:
        _remote(lake_url).create(f"{REMOTE_FOLDER}/{name}", content)
    path = sheet_path(data_dir, name)
    _keep(path, content)
    return path


def _keep(path: Path, content: bytes) -> None:
    with suppress(FileExistsError), new_file(path) as stream:  # another process of this machine was first
        stream.write(content)


@cache
def _remote(url: str) -> RemoteFiles:
    from resources.lake_remote import RemoteFiles

    return RemoteFiles(url)
