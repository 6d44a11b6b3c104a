"""`labs run L06` as people type it: real processes, progress as it comes, the table at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import main_command

LABS = Path(sys.executable).with_name("labs")


@pytest.mark.slow
def test_a_lab_is_run_shown_and_known_to_status(tmp_path: Path) -> None:
    with main_command.prepared(tmp_path / "place") as place:
        environ = place.environ("smoke")
        # From a folder that is not the repository's: relative paths must not follow the caller.
        done = subprocess.run(
            [LABS, "run", "L06"], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        assert lines[:2] == ["L06 · The Load Test Contract", "target local · pace smoke · variant baseline"]
        steps = [line.split()[1] for line in lines if line[2:3] == line[5:6] == ":"]
        assert list(dict.fromkeys(steps))[:5] == [
            "deployed_stack",
            "load_run",
            "metrics_snapshot",
            "cost_attribution",
            "finops_sheet",
        ]
        assert "dagster - " not in done.stdout
        assert [line.split()[0] for line in lines if line.split()[:1] in (["1"], ["4"])] == ["1", "4"]
        assert lines[-1].startswith('        make sql Q="select')
        [log] = (place.data_dir / "runs" / "commands").glob("*-L06-*.log")
        assert "RUN_FAILURE" not in log.read_text(encoding="utf-8")

        status = subprocess.run([LABS, "status", "--json"], env=environ, capture_output=True, text=True, check=True)
        [newest] = json.loads(status.stdout)["newest_runs"]
        assert (newest["lab"], newest["pace"], newest["finished"], newest["released"]) == ("L06", "smoke", True, True)
        assert json.loads(status.stdout)["stacks"] == []
