"""The rehearsals of this process: each session's world, and the Prometheus that answers for it.

Belongs here: finding a world again by the address that its session carries. Doesn't belong here: what happens in it
(lab_pipelines/rehearsal/).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resources import processes, prometheus_blocks
from resources.cluster import ClusterError

if TYPE_CHECKING:
    from lab_pipelines.rehearsal.world import World

SCHEME = "rehearsal://"
ELSEWHERE = "a rehearsal lives in the process that began it. Materialize all of the lab's assets in one run"


@dataclass
class Rehearsal:
    """One lease's world. `environ` marks the processes that are started for it."""

    lease_id: str
    world: World
    environ: dict[str, str]
    _served: tuple[int, str] | None = None
    """What had changed when Prometheus was started, and its URL."""

    @property
    def address(self) -> str:
        """Stands for URLs of things that have none in a rehearsal."""
        return f"{SCHEME}{self.lease_id}"

    def prometheus_url(self) -> str:
        """A Prometheus that knows everything up to now. Raises `ClusterError`."""
        world = self.world
        if self._served is not None and self._served[0] == world.changed:
            return self._served[1]
        self.stop_prometheus()
        world.scrape()
        world.scrapes.finish()
        url = prometheus_blocks.serve(world.scrapes.path, folder=world.folder / "prometheus", environ=self.environ)
        self._served = (world.changed, url)
        return url

    def stop_prometheus(self) -> None:
        """End the one that is up, if any."""
        if self._served is not None:
            state_dir, lease_id = (
                self.environ[name] for name in (processes.STATE_DIR_VARIABLE, processes.LEASE_ID_VARIABLE)
            )
            processes.end(processes.find_marked_in(state_dir).get(lease_id, []))
            self._served = None


_HERE: dict[str, Rehearsal] = {}


def open_rehearsal(rehearsal: Rehearsal) -> None:
    _HERE[rehearsal.address] = rehearsal


def close_rehearsal(lease_id: str) -> Rehearsal | None:
    """Forget a world; what is left of it is its files."""
    rehearsal = _HERE.pop(f"{SCHEME}{lease_id}", None)
    if rehearsal is not None:
        rehearsal.world.scrapes.close()
    return rehearsal


def rehearsal_at(address: str) -> Rehearsal:
    """The rehearsal that an address of a session means. Raises `ClusterError` where another process has it."""
    lease = address.removeprefix(SCHEME).partition("/")[0]
    found = _HERE.get(f"{SCHEME}{lease}")
    if found is None:
        raise ClusterError(f"this process has no such rehearsal: {ELSEWHERE}")
    return found


def newest_rehearsal() -> Rehearsal | None:
    """The one that was begun last in this process."""
    return next(reversed(_HERE.values()), None)
