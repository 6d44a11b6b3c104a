"""The main command as people run it: a process of its own, with an instance and a warehouse below one folder.

Belongs here: starting it, and finding every process that came of it. Used by tests and by benchmarks/.
Doesn't belong here: judging what it wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from lab_pipelines.deployment import REPO_ROOT
from resources.leases import LeaseBook, LeaseFile

T = TypeVar("T")

DEFINITIONS = "lab_pipelines.definitions"
INSTANCE_SETTINGS = REPO_ROOT / "deploy" / "local" / "dagster.yaml"
INITIALISE = REPO_ROOT / "scripts" / "initialise_instance.py"

_DATA_DIR = "LABS_DATA_DIR"
_LEASE_ID = "LABS_LEASE_ID"


@dataclass(frozen=True)
class Place:
    """Where runs happen: their Dagster instance and their warehouse, apart from the checkout's own."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def snapshot(self) -> Path:
        return self.data_dir / "labs.duckdb"

    def lease(self, lab: str = "L06") -> LeaseFile | None:
        """The lab's lease as it is on disk."""
        return LeaseBook(self.data_dir / "state").read(lab)

    def environ(self, pace: str) -> dict[str, str]:
        """A run's environment: the caller's, without any setting of labs or Dagster that would change the run."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LABS_", "DAGSTER_"))}
        return {**kept, "DAGSTER_HOME": str(self.home), _DATA_DIR: str(self.data_dir), "LABS_PACE": pace}


@dataclass(frozen=True)
class Run:
    """One start of the command; its output, both streams, is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, timeout_s: float = 180.0) -> int:
        """The exit code. Raises `subprocess.TimeoutExpired`."""
        return self.process.wait(timeout_s)

    def wait_for(self, look: Callable[[], T | None], *, timeout_s: float = 120.0) -> T:
        """What `look` finds, asked again and again while the run goes on. Fails when the run ends without it."""
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None
            found = look()
            if found is not None:
                return found
            assert not ended, f"the run ended with code {self.process.returncode}:\n{self.output()}"
            assert time.monotonic() < deadline, f"not seen within {timeout_s:.0f} s:\n{self.output()}"
            time.sleep(0.02)  # another process's files tell of no event

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def prepared(folder: Path) -> Iterator[Place]:
    """A place with an initialised instance. When the block ends, every process of its runs has ended, too."""
    place = Place(folder.resolve())
    place.home.mkdir(parents=True)
    place.data_dir.mkdir()
    shutil.copy(INSTANCE_SETTINGS, place.home / "dagster.yaml")
    subprocess.run([sys.executable, str(INITIALISE)], env=place.environ("smoke"), cwd=REPO_ROOT, check=True)
    try:
        yield place
    finally:
        left = processes_of(place)
        for process in left:
            _kill(process)
        psutil.wait_procs(left, timeout=10)


def start(
    place: Place,
    *,
    pace: str,
    lab: str = "L06",
    definitions: str = DEFINITIONS,
    environ: Mapping[str, str] | None = None,
) -> Run:
    """Start the main command for one lab and return at once."""
    log = place.folder / f"command-{len(list(place.folder.glob('command-*.log')))}.log"
    # A shell that put the tests into the background has made its children deaf to SIGINT. `env` becomes the command.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dagster"]
    command += ["asset", "materialize", "--select", "*", "--partition", lab, "-m", definitions]
    with log.open("xb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**place.environ(pace), **(environ or {})},
            cwd=REPO_ROOT,
        )
    return Run(process, log)


def processes_of(place: Place) -> list[psutil.Process]:
    """Every live process of the place's runs, the command itself included.

    It looks for `LABS_DATA_DIR`, which every descendant inherits, and not for the labels of resources/processes.py:
    a process that lost its labels would be found here and not there.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_DATA_DIR) == str(place.data_dir) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def lease_of(process: psutil.Process) -> str | None:
    """The lease that a process is labelled with; None for a process without a label, or one that has just ended."""
    try:
        return process.environ().get(_LEASE_ID)
    except psutil.Error:
        return None


def alive_by_lease(place: Place) -> dict[str | None, list[str]]:
    """Live processes of the place by the lease that they are labelled with, each as `pid command line`."""
    found: dict[str | None, list[str]] = {}
    for process in processes_of(place):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if command:  # else it has ended since
            found.setdefault(lease_of(process), []).append(f"{process.pid} {command}")
    return found


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
