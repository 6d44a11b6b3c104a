"""helm-python-sdk, call by call: each with a deadline, each error one line without secrets.

Belongs here: every call of the SDK, and nobody else's. Doesn't belong here: when a release is installed, waited for or
taken back (helm.py), what a chart renders to (chart_objects.py).

The SDK is Helm's own Go code in a shared library of 85 MB: a call blocks its thread without holding Python's lock, and
only installations and upgrades can be cancelled. So each runs on a thread of its own; one that doesn't end by its
deadline is cancelled where that is possible, and left behind where it isn't.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from lab_pipelines.catalog.stack import Chart
from resources.cluster import ClusterError
from resources.diagnosis import Trouble
from resources.kube_api import Deadline
from resources.redaction import redacted

if TYPE_CHECKING:
    from helm_python import Chart as LoadedChart
    from helm_python import HelmContext, HelmError

HISTORY = 10
"""Revisions of a release that are kept, as many as Helm's program keeps."""
LAST_WORDS_S = 5.0
"""How long a call that was cancelled may take to say so."""
LONGEST = 600
"""Characters of what Helm said that go into an error."""

_T = TypeVar("_T")


class ReleaseError(ClusterError):
    """A release did not become what was asked for. `troubles`: what its pods, events and logs say, in full."""

    def __init__(self, message: str, troubles: list[Trouble] | None = None) -> None:
        super().__init__(message)
        self.troubles = troubles or []


class Helm:
    """Helm's view of one namespace; a context manager. No method may be called for one release on two threads.

    `kubeconfig` and `context` as kube_api.connect takes them. `hidden`: values that no error may contain. Every method
    raises `ReleaseError`, or `ClusterError` for a cluster that can't be reached.
    """

    def __init__(
        self, *, kubeconfig: Path | None, context: str | None, namespace: str, hidden: Collection[str] = ()
    ) -> None:
        require()
        import helm_python

        self._namespace, self._hidden = namespace, hidden
        try:
            self._config = helm_python.Config(kubeconfig_path=kubeconfig, kube_context=context, namespace=namespace)
        except helm_python.HelmError as error:
            raise _explained(error, "Helm can't use the kubeconfig", hidden) from None

    def __enter__(self) -> Helm:
        return self

    def __exit__(self, *_: object) -> None:
        self._config.close()

    def history(self, release: str, *, deadline: Deadline) -> list[dict[str, Any]]:
        """The revisions that are kept, oldest first; empty for a release that isn't there."""
        import helm_python

        def read(_: HelmContext) -> list[dict[str, Any]]:
            try:
                return self._config.history(release)
            except helm_python.HelmNotFoundError:
                return []

        return self._call(f"the history of release {release} can't be read", read, deadline)

    def manifest(self, release: str, *, deadline: Deadline) -> str:
        """What the newest revision consists of, without hooks."""
        doing = f"release {release} can't be read"
        return self._call(doing, lambda _: self._config.status(release), deadline)["manifest"]

    def notes(self, release: str, *, deadline: Deadline) -> str | None:
        """What the chart's NOTES.txt says of the newest revision."""
        doing = f"release {release} can't be read"
        return self._call(doing, lambda _: self._config.get_all(release), deadline)["info"].get("notes")

    def render(
        self, chart: LoadedChart, release: str, values: Mapping[str, Any], *, upgrade: bool, deadline: Deadline
    ) -> str:
        """The manifest that chart and values make against this cluster's version and kinds, without hooks."""

        def render(stop: HelmContext) -> str:
            act = self._config.upgrade if upgrade else self._config.install
            options = {"dry_run": "server", "namespace": self._namespace, "context": stop}
            return act(chart, release, dict(values), **options)["manifest"]

        return self._call(f"release {release} can't be rendered", render, deadline)

    def render_offline(
        self, chart: LoadedChart, release: str, values: Mapping[str, Any], *, upgrade: bool, deadline: Deadline
    ) -> dict[str, str]:
        """What each template of the chart makes of the values, hooks and notes among them, for no certain cluster."""

        def render(_: HelmContext) -> dict[str, str]:
            options = {"is_install": not upgrade, "is_upgrade": upgrade}
            return chart.render(dict(values), name=release, namespace=self._namespace, **options)

        return self._call(f"release {release} can't be rendered", render, deadline)

    def write(self, chart: LoadedChart, release: str, *, upgrade: bool, deadline: Deadline) -> None:
        """Install or upgrade with the chart's own values; waits for hooks alone."""

        def write(stop: HelmContext) -> object:
            options: dict[str, Any] = {"timeout": _seconds(deadline), "wait": "hookOnly", "context": stop}
            if not upgrade:
                return self._config.install(chart, release, {}, namespace=self._namespace, **options)
            options |= {"max_history": HISTORY, "cleanup_on_fail": True, "reset_values": True}
            return self._config.upgrade(chart, release, {}, namespace=self._namespace, **options)

        self._call(f"release {release} can't be {'upgraded' if upgrade else 'installed'}", write, deadline)

    def rollback(self, release: str, revision: int, *, deadline: Deadline) -> None:
        """Make an earlier revision the newest again; waits for hooks alone."""

        def back(_: HelmContext) -> None:
            self._config.rollback(release, version=revision, timeout=_seconds(deadline), wait="hookOnly")

        self._call(f"release {release} can't be rolled back to revision {revision}", back, deadline)

    def uninstall(self, release: str, *, deadline: Deadline) -> None:
        """Remove a release, if it is there, and wait until its objects are gone."""

        def remove(_: HelmContext) -> object:
            options: dict[str, Any] = {"wait": "watcher", "timeout": _seconds(deadline)}
            return self._config.uninstall(release, ignore_not_found=True, **options)

        self._call(f"release {release} can't be uninstalled", remove, deadline)

    def _call(self, doing: str, work: Callable[[HelmContext], _T], deadline: Deadline) -> _T:
        return _within(deadline, doing, work, self._hidden)


def require() -> None:
    """Raises `ClusterError` where the SDK isn't installed."""
    try:
        import helm_python  # noqa: F401  only whether it is there
    except ImportError as error:
        raise ClusterError(
            f"charts need helm-python-sdk ({redacted(str(error))}); it is in the extra aks: make setup, or "
            "pip install 'lab-pipelines[aks]'"
        ) from None


def read_yaml(document: str) -> dict[str, Any]:
    """One YAML document as Kubernetes reads it, which is not as PyYAML does. Raises `ReleaseError`."""
    import helm_python

    try:
        return helm_python.values_from_yaml(document)
    except helm_python.HelmError as error:
        raise _explained(error, "a rendered document can't be read", ()) from None


def load(chart: Chart | Path, *, deadline: Deadline) -> LoadedChart:
    """A chart of a repository at its pinned version, or of a folder. Raises `ReleaseError`."""
    require()
    import helm_python

    if isinstance(chart, Path):
        return _within(deadline, f"chart {chart} can't be used", lambda _: helm_python.Chart.load(chart), ())
    doing = f"chart {chart.name} {chart.version} of {redacted(chart.repository)} can't be had"
    is_oci = chart.repository.startswith("oci://")
    reference = f"{chart.repository.rstrip('/')}/{chart.name}" if is_oci else chart.name
    with TemporaryDirectory(prefix="lab-chart-") as folder:

        def pull(_: HelmContext) -> LoadedChart:
            where: dict[str, Any] = {} if is_oci else {"repo_url": chart.repository}
            helm_python.pull(reference, version=chart.version, destination=folder, **where)
            [archive] = Path(folder).glob("*.tgz")
            return helm_python.Chart.load(archive)

        return _within(deadline, doing, pull, ())


def archived(archive: bytes) -> LoadedChart:
    """A chart from its archive's bytes."""
    import helm_python

    return helm_python.Chart.load_archive(archive)


def _within(deadline: Deadline, doing: str, work: Callable[[HelmContext], _T], hidden: Collection[str]) -> _T:
    """What `work` returns. Raises `ReleaseError` or `ClusterError` that begins with `doing`."""
    import helm_python

    results: list[_T] = []
    errors: list[BaseException] = []
    context = helm_python.HelmContext()

    def run() -> None:
        try:
            results.append(work(context))
        except BaseException as error:  # noqa: BLE001  # raised below, on the thread that waits for it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="helm")
    thread.start()
    try:
        thread.join(max(deadline.remaining_s, 1.0))
    finally:  # also when the run is interrupted: what can be cancelled must not go on behind it
        if thread.is_alive():
            context.cancel()
            thread.join(LAST_WORDS_S)
    if results:
        return results[0]
    if not errors:
        raise ReleaseError(f"{doing}: Helm did not end in time")
    if isinstance(errors[0], helm_python.HelmError):
        raise _explained(errors[0], doing, hidden) from None
    raise errors[0]


def _explained(error: HelmError, doing: str, hidden: Collection[str]) -> ClusterError:
    import helm_python

    said = redacted(" ".join(str(error).split()), hidden)
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
    if isinstance(error, helm_python.HelmKubeError):
        return ClusterError(f"{doing}: {said}; is the cluster up, and is this the right kubeconfig?")
    if isinstance(error, helm_python.HelmCancelledError):
        return ReleaseError(f"{doing} in time: {said}")
    return ReleaseError(f"{doing}: {said}")


def _seconds(deadline: Deadline) -> int:
    return max(math.ceil(deadline.remaining_s), 1)
