"""Programs are found by any name that a system gives them, and one that is missing comes with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from resources import binaries
from resources.binaries import BinaryNotFoundError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; nothing was fetched by the set-up."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "FETCHED", tmp_path / "fetched")
    return tmp_path


def add_program(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.touch(mode=0o755)
    return path


def test_alertmanager_is_found_as_debian_calls_it_and_as_everybody_else_does(machine: Path) -> None:
    debians = add_program(machine, "prometheus-alertmanager")
    assert binaries.find("alertmanager") == debians
    plain = add_program(machine, "alertmanager")
    assert binaries.find("alertmanager") == plain


def test_what_is_on_path_wins_over_what_the_set_up_fetched(machine: Path) -> None:
    fetched = add_program(machine / "fetched", "prometheus-alertmanager")
    assert binaries.find("alertmanager") == fetched
    on_path = add_program(machine, "prometheus-alertmanager")
    assert binaries.find("alertmanager") == on_path


@pytest.mark.parametrize(
    ("program", "package"),
    [("prometheus", "prometheus"), ("promtool", "prometheus"), ("alertmanager", "prometheus-alertmanager")],
)
def test_a_missing_program_is_named_with_the_package_that_brings_it(machine: Path, program: str, package: str) -> None:
    with pytest.raises(BinaryNotFoundError, match=f"{program} is not installed: .*apt-get install {package}`"):
        binaries.find(program)
