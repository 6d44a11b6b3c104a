"""Whatever dies, the next start finds what it left: by the lease, and by the marker that every process carries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from resources import processes
from resources.cluster import Lease, LeaseHeldError
from resources.leases import LeaseBook, LeaseFile, why_dead

NOW = datetime(2026, 3, 12, 9, 0, tzinfo=UTC)

# Ignores SIGTERM and has a child of its own, as a stubborn server with workers would. Tells when it is ready.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> Iterator[tuple[Path, list[int]]]:
    """A marked process tree; the state folder it belongs to, and its pids."""
    state_dir = tmp_path / "state"
    log = tmp_path / "log"
    parent = processes.spawn(
        [sys.executable, "-c", STUBBORN], environ=processes.marker(state_dir, "lease-1"), log=log, cwd=tmp_path
    )
    while not log.read_text().endswith("\n"):
        assert parent.poll() is None, log.read_text()
    pids = [parent.pid, int(log.read_text())]
    yield state_dir, pids
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    parent.wait()


def running(pids: list[int]) -> list[int]:
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]


def test_a_process_and_its_children_are_found_by_their_marker_and_ended_for_certain(
    stubborn: tuple[Path, list[int]],
) -> None:
    state_dir, pids = stubborn
    found = processes.find_marked(state_dir)
    assert sorted(p.pid for p in found["lease-1"]) == sorted(pids)
    processes.end(found["lease-1"], grace_s=0.5)
    assert running(pids) == []
    assert processes.find_marked(state_dir) == {}
    assert processes.end(found["lease-1"], grace_s=0.5) == []


def test_processes_of_another_state_folder_are_not_ours(stubborn: tuple[Path, list[int]], tmp_path: Path) -> None:
    _, pids = stubborn
    assert processes.find_marked(tmp_path / "other") == {}
    assert running(pids) == pids


def test_a_dead_owner_is_told_from_a_live_one_and_from_a_later_process_with_its_pid() -> None:
    me = processes.owner_of()
    assert processes.is_alive(me)
    pid, started = me.split(":")
    assert not processes.is_alive(f"{pid}:{float(started) - 100:.2f}")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = processes.owner_of(child.pid)
    assert processes.is_alive(owner)
    child.kill()
    child.wait()
    assert not processes.is_alive(owner)


def test_a_lab_is_held_by_one_run_at_a_time_and_the_refusal_says_by_whom(tmp_path: Path) -> None:
    book = LeaseBook(tmp_path)
    with book.locked():
        first = book.take("L06", "run-1")
        with pytest.raises(LeaseHeldError, match=r"L06 is held by run run-1 \(process \d+\) until"):
            book.take("L06", "run-2")
        book.take("L07", "run-2")
    assert book.read("L06") == first
    book.remove("L06")
    book.remove("L06")
    assert [entry.lease.lab for entry in book.all()] == ["L07"]


def test_a_lease_file_that_cannot_be_read_counts_as_expired(tmp_path: Path) -> None:
    book = LeaseBook(tmp_path)
    with book.locked():
        book.take("L06", "run-1")
    (tmp_path / "leases" / "L06.json").write_text("{ half a fi")
    [entry] = book.all()
    assert why_dead(entry, now=NOW, owner_alive=True) is not None


@pytest.mark.parametrize(
    ("expires_in_s", "hold", "owner_alive", "reason"),
    [
        (60, False, True, None),
        (60, False, False, "is dead"),
        (60, True, False, None),
        (-1, True, False, "expired"),
        (-1, False, True, "expired"),
        (0, False, True, "expired"),
    ],
)
def test_a_lease_ends_with_its_expiry_or_with_an_owner_who_did_not_ask_to_hold_it(
    expires_in_s: int, hold: bool, owner_alive: bool, reason: str | None
) -> None:
    lease = Lease(lease_id="x", lab="L06", run_id="r", owner="1:1", expires_at=NOW + timedelta(seconds=expires_in_s))
    why = why_dead(LeaseFile(lease=lease, hold=hold), now=NOW, owner_alive=owner_alive)
    assert (why is None) == (reason is None)
    assert reason is None or reason in (why or "")
