"""What every stack on this machine's loopback shares: its lease, how it is reaped and released.

Belongs here: `LoopbackCluster` and helpers of its kinds. Doesn't belong here: what the processes are
(cluster_local.py, cluster_external.py).
"""

from __future__ import annotations

import atexit
from abc import abstractmethod
from datetime import UTC, datetime
from pathlib import Path

from lab_pipelines.catalog.steps import ApplyStep
from resources import processes
from resources.cluster import ApplyOutcome, Cluster, ClusterError, Lease, Progress, Reaped, Session, StackOrder
from resources.leases import TTL, LeaseBook, LeaseFile, why_dead

_GONE = "the lease of {} is gone: its stack was released or reaped meanwhile"


class LoopbackCluster(Cluster):
    """Leases, reaping and release for any stack whose processes run on this machine."""

    data_dir: str

    @abstractmethod
    def _bring_up(self, order: StackOrder, *, environ: dict[str, str], folder: Path, progress: Progress) -> Session:
        """Start the stack's processes with `environ` and return when they answer. May raise with some of them up."""

    def deploy(self, order: StackOrder, *, progress: Progress) -> Session:
        lab, book = order.spec.id, self._book()
        with book.locked():
            for reaped in self._reap(book):
                progress(f"reaped the stack of {reaped.lab}, because {reaped.reason}: {len(reaped.removed)} processes")
            entry = book.take(lab, order.run_id, hold=order.hold)
        lease_id = entry.lease.lease_id
        try:
            session = self._bring_up(
                order,
                environ=processes.marker(self._state_dir, lease_id),
                folder=self.run_folder(order.run_id, lab),
                progress=progress,
            )
        except BaseException:
            self._release(lab, lease_id)
            raise
        book.write(entry.model_copy(update={"sessions": [session]}))
        if order.hold is None:
            # A run that ends before metrics_snapshot (a failed check skips the rest) must not leave its stack behind.
            atexit.register(self._release, lab, lease_id)
        return session

    def switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        self.renew(session)
        following = self._switch(session, order, progress=progress)
        book = self._book()
        with book.locked():
            entry = book.read(session.lab)
            if entry is None:
                raise ClusterError(_GONE.format(session.lab))
            book.write(entry.model_copy(update={"sessions": [*entry.sessions, following]}))
        return following

    @abstractmethod
    def _switch(self, session: Session, order: StackOrder, *, progress: Progress) -> Session:
        """What `switch` says, without the lease's own record of it."""

    def attach(self, lab: str) -> Session:
        return self.sessions(lab)[-1]

    def sessions(self, lab: str) -> list[Session]:
        entry = self._book().read(lab)
        if not entry or not entry.sessions or why_dead(entry, now=datetime.now(UTC), owner_alive=_alive(entry)):
            raise ClusterError(
                f"no stack of {lab} is up. Materialize deployed_stack in the same run, or first on its own "
                "with hold_minutes set"
            )
        return entry.sessions

    def marker(self, lab: str) -> dict[str, str]:
        entry = self._book().read(lab)
        return processes.marker(self._state_dir, entry.lease.lease_id) if entry else {}

    def apply(self, session: Session, step: ApplyStep, *, progress: Progress) -> ApplyOutcome:
        raise ClusterError(f"step {step.name} applies Kubernetes manifests, and this machine has no API server")

    def renew(self, session: Session) -> None:
        book = self._book()
        with book.locked():
            entry = book.read(session.lab)
            if entry is None or entry.sessions[-1:] != [session]:
                raise ClusterError(_GONE.format(session.lab))
            expires_at = max(entry.lease.expires_at, datetime.now(UTC) + TTL)
            book.write(entry.model_copy(update={"lease": entry.lease.model_copy(update={"expires_at": expires_at})}))

    def leases(self) -> list[Lease]:
        return [entry.lease for entry in self._book().all()]

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        entry = self._book().read(lab)
        if entry is None or run_id not in (None, entry.lease.run_id):
            return None
        return self._release(lab, entry.lease.lease_id)

    def reap(self) -> list[Reaped]:
        book = self._book()
        with book.locked():
            return self._reap(book)

    def run_folder(self, run_id: str, lab: str) -> Path:
        """Where a run keeps the logs and raw files of its stack and load."""
        return Path(self.data_dir) / "runs" / run_id / lab

    @property
    def _state_dir(self) -> Path:
        return Path(self.data_dir) / "state"

    def _book(self) -> LeaseBook:
        return LeaseBook(self._state_dir)

    def _release(self, lab: str, lease_id: str | None) -> datetime | None:
        """End the processes first and forget the lease last, so that dying in between leaves it for the reaper."""
        book = self._book()
        with book.locked():
            entry = book.read(lab)
            if entry is None or (lease_id is not None and entry.lease.lease_id != lease_id):
                return None
            processes.end(processes.find_marked(self._state_dir).get(entry.lease.lease_id, []))
            book.remove(lab)
            return datetime.now(UTC)

    def _reap(self, book: LeaseBook) -> list[Reaped]:
        marked = processes.find_marked(self._state_dir)
        reaped, good = [], set()
        for entry in book.all():
            reason = why_dead(entry, now=datetime.now(UTC), owner_alive=_alive(entry))
            if reason is None:
                good.add(entry.lease.lease_id)
                continue
            removed = processes.end(marked.pop(entry.lease.lease_id, []))
            book.remove(entry.lease.lab)
            reaped.append(_reaped(entry, reason, removed))
        for lease_id, orphans in marked.items():
            if lease_id not in good:
                removed = processes.end(orphans)
                reaped.append(
                    Reaped(
                        lease_id=lease_id, lab="unknown", run_id="unknown", reason="it has no lease", removed=removed
                    )
                )
        return reaped


def scrape_interval_s(time_scale: float) -> float:
    """Wall seconds between scrapes: about two stack seconds, within what a small machine bears and a person waits."""
    return min(max(2.0 / time_scale, 0.1), 1.0)


def once_more(session: Session, order: StackOrder, *, requested_at: datetime, ready_at: datetime) -> Session:
    """The stack as it is, with a session of its own for the next turn of its one variant."""
    lease_id, _, _ = session.session_id.partition(".")
    return session.model_copy(
        update={
            "session_id": f"{lease_id}.{order.visit}",
            "trial": order.trial,
            "requested_at": requested_at,
            "ready_at": ready_at,
            "phases": [],
        }
    )


def _alive(entry: LeaseFile) -> bool:
    return processes.is_alive(entry.lease.owner)


def _reaped(entry: LeaseFile, reason: str, removed: list[str]) -> Reaped:
    lease = entry.lease
    return Reaped(lease_id=lease.lease_id, lab=lease.lab, run_id=lease.run_id, reason=reason, removed=removed)
