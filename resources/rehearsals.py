"""The rehearsals of this process: each session's world, and the Prometheus that answers for it.

Belongs here: finding a world again by the address that its session carries. Doesn't belong here: what happens in it
(lab_pipelines/rehearsal/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resources.cluster import ClusterError
from resources.prometheus_blocks import PrometheusBlocks

if TYPE_CHECKING:
    from lab_pipelines.catalog.spec import LabSpec
    from lab_pipelines.rehearsal.control_plane import ControlPlane
    from lab_pipelines.rehearsal.weights import Weights
    from lab_pipelines.rehearsal.world import World

SCHEME = "rehearsal://"
ELSEWHERE = "a rehearsal lives in the process that began it. Materialize all of the lab's assets in one run"
WORTH_PAGES = 60
"""As many take promtool 0.06 s, about as long as its start."""


class Rehearsal:
    """One lease's world, with the namespace of its lab in it, and the Prometheus over its series.

    `environ` marks the processes that are started for it.
    """

    def __init__(
        self, lease_id: str, spec: LabSpec, world: World, control_plane: ControlPlane, environ: dict[str, str]
    ) -> None:
        self.lease_id = lease_id
        self.spec = spec
        self.world = world
        self.control_plane = control_plane
        self.weights: Weights | None = None
        """Of the engine that is up or was last, where its values name a volume for them."""
        world.extra.append(control_plane.series)
        world.extra.append(lambda at_s: () if self.weights is None else self.weights.series(at_s))
        self._blocks = PrometheusBlocks(world.folder / "prometheus", environ)
        self._known = -1
        """What had changed in the world when its series were taken last."""

    @property
    def address(self) -> str:
        """Stands for URLs of things that have none in a rehearsal."""
        return f"{SCHEME}{self.lease_id}"

    def keep_series(self) -> None:
        """Let blocks be made of all series so far, while other things go on, if they are worth a process of their own.

        What is too little is left to the next time; who asks Prometheus sees it in any case.
        """
        if self.world.scrapes.pages >= WORTH_PAGES:
            self._keep_series()

    def _keep_series(self) -> None:
        self._blocks.add(self.world.scrapes.cut())
        self._known = self.world.changed

    def prometheus_url(self) -> str:
        """A Prometheus that knows everything up to now. Raises `ClusterError`."""
        if self._known != self.world.changed:
            self.world.scrape()
            self._keep_series()
        return self._blocks.serve()


_HERE: dict[str, Rehearsal] = {}


def open_rehearsal(rehearsal: Rehearsal) -> None:
    _HERE[rehearsal.address] = rehearsal


def close_rehearsal(lease_id: str) -> Rehearsal | None:
    """Forget a world; what is left of it is its files."""
    rehearsal = _HERE.pop(f"{SCHEME}{lease_id}", None)
    if rehearsal is not None:
        rehearsal.world.scrapes.discard()
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
