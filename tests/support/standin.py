"""A stand-in's process for the length of a block: started, announced, ended by its pid."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STARTED_WITHIN_S = 60


@dataclass(frozen=True)
class Standin:
    process: subprocess.Popen[bytes]
    announced: dict[str, str]


@contextmanager
def standin(name: str, folder: Path, *options: str) -> Iterator[Standin]:
    """`lab_pipelines.standins.<name>` with `options`, announced in `folder`."""
    announce = folder / f"{name}.json"
    process = subprocess.Popen(
        [sys.executable, "-m", f"lab_pipelines.standins.{name}", "--announce", str(announce), *options]
    )
    try:
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not announce.exists():
            assert process.poll() is None, f"{name} ended with exit code {process.returncode}"
            assert time.monotonic() < deadline, f"{name} did not announce itself"
            time.sleep(0.02)  # a file that another process writes tells of no event
        yield Standin(process, json.loads(announce.read_text(encoding="utf-8")))
    finally:
        process.terminate()
        process.wait(30)
