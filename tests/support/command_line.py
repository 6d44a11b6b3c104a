"""What tests of `labs` share: an environment of their own, and what a refusal must look like.

Doesn't belong here: rows to publish (rows/), Dagster's own command (main_command.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import Result


def own_environment(monkeypatch: pytest.MonkeyPatch, data_dir: Path | str) -> None:
    """No setting of the caller's, and a data folder of the test's own."""
    for name in [name for name in os.environ if name.startswith("LABS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LABS_DATA_DIR", str(data_dir))


def refused(result: Result, code: int) -> str:
    """The message of a call that had to fail: on stderr, no traceback, nothing on stdout."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr
