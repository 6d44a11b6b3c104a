"""Which local stacks are up, as the files of their leases say.

Belongs here: reading those files for a person, without Dagster. Doesn't belong here: taking, renewing or ending a lease
(resources/leases.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from resources import processes


class _Lease(BaseModel):
    model_config = ConfigDict(extra="ignore")
    lab: str
    run_id: str
    owner: str
    expires_at: datetime


class _Session(BaseModel):
    model_config = ConfigDict(extra="ignore")
    variant: str
    ready_at: datetime


class _LeaseFile(BaseModel):
    model_config = ConfigDict(extra="ignore")
    lease: _Lease
    hold: bool
    sessions: list[_Session] = []

    @property
    def session(self) -> _Session | None:
        """Of the variant that is walked now."""
        return self.sessions[-1] if self.sessions else None


@dataclass(frozen=True)
class Stack:
    """One lease. `state` says in words whether its stack is coming up, up, or left behind."""

    lab: str
    run_id: str
    state: str
    variant: str | None
    ready_at: datetime | None
    expires_at: datetime


def stacks(state_dir: Path, *, now: datetime | None = None) -> list[Stack]:
    """Every lease below `state_dir`, by lab. A file that can't be read is left to the reaper, which clears it."""
    found = []
    for path in sorted((state_dir / "leases").glob("*.json")):
        try:
            file = _LeaseFile.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            continue
        found.append(
            Stack(
                lab=file.lease.lab,
                run_id=file.lease.run_id,
                state=_state(file, now or datetime.now(UTC)),
                variant=file.session.variant if file.session else None,
                ready_at=file.session.ready_at if file.session else None,
                expires_at=file.lease.expires_at,
            )
        )
    return found


def _state(file: _LeaseFile, now: datetime) -> str:
    if now >= file.lease.expires_at:
        return "expired; the next run's reaper removes it"
    alive = processes.is_alive(file.lease.owner)
    if not alive and not file.hold:
        return "its run is dead; the next run's reaper removes it"
    if file.session is None:
        return "coming up"
    return "up" if alive else "up, held"
