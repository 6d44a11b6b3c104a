"""Leases of local stacks: one file per lab, written before anything is started and removed after all is gone.

Belongs here: who holds a lab until when, on this machine. Doesn't belong here: starting or ending processes.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from resources import processes
from resources.cluster import Lease, LeaseHeldError, Record, Session

TTL = timedelta(minutes=30)
"""How long a lease lasts without a renewal; the load renews it at every progress line."""


class LeaseFile(Record):
    """What is on disk: the lease, and its sessions once the stack is up, one for each variant so far."""

    lease: Lease
    hold: bool = False
    """The stack may outlive its owner, until the lease expires."""
    sessions: list[Session] = Field(default_factory=list)


class LeaseBook:
    """The leases below one state folder. Every change happens under a lock that other processes respect."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._leases = state_dir / "leases"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the book's lock; a killed holder's lock is freed by the kernel."""
        self._leases.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "leases.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def take(self, lab: str, run_id: str, *, hold: timedelta | None = None) -> LeaseFile:
        """Write a new lease for `lab`. Call it locked, after the dead have been reaped.

        With `hold` the stack may outlive this process for that long. Raises `LeaseHeldError` when a live run has it.
        """
        held = self.read(lab)
        if held is not None:
            raise LeaseHeldError(
                f"{lab} is held by run {held.lease.run_id} (process {held.lease.owner.split(':')[0]}) until "
                f"{held.lease.expires_at:%Y-%m-%d %H:%M:%S} UTC. Wait for it, or end that run; its stack goes with it."
            )
        lease = Lease(
            lease_id=uuid.uuid4().hex,
            lab=lab,
            run_id=run_id,
            owner=processes.owner_of(),
            expires_at=datetime.now(UTC) + (hold or TTL),
        )
        entry = LeaseFile(lease=lease, hold=hold is not None)
        self.write(entry)
        return entry

    def read(self, lab: str) -> LeaseFile | None:
        """The lab's lease, or None. A file that can't be read counts as expired, so that the reaper clears it."""
        try:
            return LeaseFile.model_validate_json(self._path(lab).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            dead = Lease(
                lease_id="", lab=lab, run_id="unknown", owner="0:0", expires_at=datetime.min.replace(tzinfo=UTC)
            )
            return LeaseFile(lease=dead)

    def write(self, entry: LeaseFile) -> None:
        """Replace the lab's lease file in one step."""
        path = self._path(entry.lease.lab)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(entry.model_dump_json(), encoding="utf-8")
        temporary.replace(path)

    def remove(self, lab: str) -> None:
        """Forget the lab's lease. Idempotent."""
        self._path(lab).unlink(missing_ok=True)

    def all(self) -> list[LeaseFile]:
        """Every lease there is."""
        return [entry for path in sorted(self._leases.glob("*.json")) if (entry := self.read(path.stem)) is not None]

    def _path(self, lab: str) -> Path:
        return self._leases / f"{lab}.json"


def why_dead(entry: LeaseFile, *, now: datetime, owner_alive: bool) -> str | None:
    """Why the reaper should end this lease, or None while it is good. Pure."""
    if now >= entry.lease.expires_at:
        return f"its lease expired at {entry.lease.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    if not owner_alive and not entry.hold:
        return f"its run (process {entry.lease.owner.split(':')[0]}) is dead"
    return None
