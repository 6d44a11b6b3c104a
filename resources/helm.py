"""Helm releases in one namespace: install or upgrade, wait, explain what went wrong, take back, remove.

Belongs here: the course of an installation. Doesn't belong here: calls of Helm's SDK (helm_sdk.py), values
(chart_values.py), what a chart renders to (chart_objects.py), why pods are not ready (diagnosis.py), leases.

Helm installs without waiting for pods; this module waits itself: with our deadline, telling what it waits for, and
ending early where waiting is of no use (docs/decisions/0015). Whoever calls holds the namespace's lease: nobody else
works on its releases, so one that is `pending-…` was left by a run that is dead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_pipelines.catalog.stack import Chart
from resources import chart_objects, diagnosis, helm_sdk, kube_api
from resources.cluster import ClusterError, Progress, Record
from resources.diagnosis import Trouble
from resources.helm_sdk import Helm, ReleaseError
from resources.kube_api import Deadline, RefusedError
from resources.manifests import Manifest
from resources.redaction import redacted, secrets_in

if TYPE_CHECKING:
    from helm_python import Chart as LoadedChart
    from kubernetes.client import ApiClient

RELEASE_LABEL = "lab-pipelines-release"
"""On every object of a release and on its pods; its value is the release's name."""
LOOK_S = 0.5
"""Between two looks at pods that are waited for."""
TAKE_BACK_S = 60.0
"""How long explaining a failure, and taking it back, may each last beyond a deadline that has passed already."""

_GOOD = ("deployed", "superseded")
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Release(Record):
    """One revision of a release."""

    name: str
    revision: int
    status: str
    """Helm's: `deployed`, `superseded`, `failed`, `pending-install`, …"""
    chart: str
    """Name and version, e.g. `vllm-stack-0.1.12`."""
    deployed_at: datetime


class Applied(Record):
    """What an installation or upgrade came to."""

    release: Release
    manifest_digest: str
    """Of what chart and values render to; the same for the same of both."""
    notes: str | None


class HelmReleases:
    """The releases of one namespace. `kubeconfig` and `context` as for kube_api.connect, of the same cluster.

    Raises `ClusterError` where helm-python-sdk isn't installed.
    """

    def __init__(self, api_client: ApiClient, *, kubeconfig: Path | None, context: str | None, namespace: str) -> None:
        helm_sdk.require()
        self._api, self._kubeconfig, self._context, self._namespace = api_client, kubeconfig, context, namespace
        self._charts: dict[tuple[str, str, str], LoadedChart] = {}
        """Pulled ones, by repository, name and version: a variant's upgrade takes the same chart again."""

    def apply(
        self,
        release: str,
        chart: Chart | Path,
        values: Mapping[str, Any],
        *,
        labels: Mapping[str, str],
        deadline: Deadline,
        progress: Progress,
        alive: Callable[[], None] = lambda: None,
    ) -> Applied:
        """Install or upgrade, and wait until every workload has its pods ready.

        `chart`: a pinned one of a repository, or a folder. `labels` go onto every object and pod; other ones at an
        upgrade start its pods anew. `alive` is called at every look at the pods, so that a lease can be renewed.
        Raises `ReleaseError` after a failed upgrade was rolled back or a failed installation removed, `ClusterError`
        for a cluster that can't be reached.
        """
        hidden = secrets_in(values)
        every = {**labels, RELEASE_LABEL: release}
        with self._helm(hidden) as helm:
            self._recover(helm, release, deadline, progress)
            before = _newest(helm.history(release, deadline=deadline))
            upgrade = before > 0
            loaded = self._load(chart, deadline)
            self._install_definitions(loaded, deadline)
            manifests, finished = self._finished(helm, loaded, release, values, every, upgrade, deadline)
            about = f"{finished.name} {finished.version}"
            progress(f"{release}: {'upgrading to' if upgrade else 'installing'} {about}")
            try:
                with finished:
                    helm.write(finished, release, upgrade=upgrade, deadline=deadline)
                self._wait(release, chart_objects.workloads_of(manifests), deadline, progress, alive)
            except ReleaseError as error:
                troubles = self._diagnose(release, hidden)
                why = f": {diagnosis.in_one_line(troubles)}" if troubles else ""
                undone = self._take_back(helm, release, before, progress)
                raise ReleaseError(redacted(f"{error}{why} ({undone})", hidden), troubles) from None
            last = _release(helm.history(release, deadline=Deadline.within(TAKE_BACK_S))[-1])
            notes = helm.notes(release, deadline=Deadline.within(TAKE_BACK_S))
        progress(f"{release}: revision {last.revision} is ready")
        return Applied(release=last, manifest_digest=chart_objects.digest_of(manifests), notes=notes)

    def scale(self, release: str, replicas: int, *, deadline: Deadline, progress: Progress) -> None:
        """Let every deployment and stateful set of a release have `replicas` pods, and wait until it is so.

        A revision of its own, with everything else as it is: whoever changed the number beside Helm would own it, and
        Helm's next upgrade would be refused as a conflict (seen: server-side apply). Raises `ReleaseError`.
        """
        with self._helm() as helm:
            history = helm.history(release, deadline=deadline)
            if not history:
                raise ReleaseError(f"component {release} is not up, so it can't be stopped or started")
            manifests = chart_objects.objects_of(helm.manifest(release, deadline=deadline), helm_sdk.read_yaml)
            scaled = chart_objects.scaled(manifests, replicas)
            metadata = {"apiVersion": "v2", "name": history[-1]["chart_name"], "version": history[-1]["chart_version"]}
            archive = chart_objects.finished_chart(metadata, scaled, labels={}, notes=None)
            progress(f"{release}: {replicas} pods")
            with helm_sdk.archived(archive) as finished:
                helm.write(finished, release, upgrade=True, deadline=deadline)
            self._wait(release, chart_objects.workloads_of(scaled), deadline, progress, lambda: None)

    def history(self, release: str, *, deadline: Deadline) -> list[Release]:
        """The revisions that are kept, oldest first; empty for a release that isn't there. Raises `ClusterError`."""
        with self._helm() as helm:
            return [_release(one) for one in helm.history(release, deadline=deadline)]

    def rollback(self, release: str, revision: int, *, deadline: Deadline, progress: Progress) -> Release:
        """Make an earlier revision the newest again, without waiting for its pods. Raises `ReleaseError`."""
        with self._helm() as helm:
            helm.rollback(release, revision, deadline=deadline)
            last = _release(helm.history(release, deadline=deadline)[-1])
        progress(f"{release}: rolled back to revision {revision}, now {last.revision}")
        return last

    def uninstall(self, release: str, *, deadline: Deadline, progress: Progress) -> bool:
        """Remove a release and wait until its objects are gone. False if it wasn't there. Raises `ReleaseError`."""
        with self._helm() as helm:
            if not helm.history(release, deadline=deadline):
                return False
            helm.uninstall(release, deadline=deadline)
        progress(f"{release}: uninstalled")
        return True

    def _helm(self, hidden: set[str] | None = None) -> Helm:
        return Helm(
            kubeconfig=self._kubeconfig, context=self._context, namespace=self._namespace, hidden=hidden or set()
        )

    # --- The parts of an installation ---

    def _recover(self, helm: Helm, release: str, deadline: Deadline, progress: Progress) -> None:
        """Make a release usable that a killed run left in the middle of something."""
        history = helm.history(release, deadline=deadline)
        if not history or history[-1]["status"] == "deployed":
            return
        status, good = history[-1]["status"], _good(history)
        if good is not None and status.startswith(("pending-", "failed")):
            progress(f"{release}: was left {status}; rolling back to revision {good}")
            helm.rollback(release, good, deadline=deadline)
        else:
            progress(f"{release}: was left {status}; removing it")
            helm.uninstall(release, deadline=deadline)

    def _load(self, chart: Chart | Path, deadline: Deadline) -> LoadedChart:
        if isinstance(chart, Path):
            return helm_sdk.load(chart, deadline=deadline)
        key = (chart.repository, chart.name, chart.version)
        if key not in self._charts:
            self._charts[key] = helm_sdk.load(chart, deadline=deadline)
        return self._charts[key]

    def _install_definitions(self, chart: LoadedChart, deadline: Deadline) -> None:
        """The definitions in a chart's `crds/` that the cluster lacks, as Helm would: never a change of one.

        Before anything is rendered, because a dry run against the cluster refuses objects of kinds that it lacks.
        """
        for one in chart.crds:
            for definition in chart_objects.objects_of(one["data"], helm_sdk.read_yaml):
                self._define(definition, deadline)

    def _define(self, definition: Manifest, deadline: Deadline) -> None:
        path = f"{_DEFINITIONS}/{definition['metadata']['name']}"
        with suppress(RefusedError):
            kube_api.request(self._api, "GET", path, deadline=deadline)
            return
        try:
            kube_api.request(
                self._api, "POST", _DEFINITIONS, body=definition, content_type=kube_api.JSON, deadline=deadline
            )
        except RefusedError as refused:
            if refused.status != 409:  # another lab's run was faster
                raise ReleaseError(f"{path} can't be made: {refused}") from None
        while not _is_served(found := kube_api.request(self._api, "GET", path, deadline=deadline)):
            if deadline.remaining_s == 0:
                raise ReleaseError(f"{path} is not served: {(found.get('status') or {}).get('conditions')}")
            time.sleep(kube_api.RETRY_S)  # the server takes a new kind up within a second

    def _finished(
        self,
        helm: Helm,
        chart: LoadedChart,
        release: str,
        values: Mapping[str, Any],
        labels: Mapping[str, str],
        upgrade: bool,
        deadline: Deadline,
    ) -> tuple[list[Manifest], LoadedChart]:
        """What the chart renders to, and a chart of exactly that with labels on it."""
        rendered = helm.render(chart, release, values, upgrade=upgrade, deadline=deadline)
        templates = helm.render_offline(chart, release, values, upgrade=upgrade, deadline=deadline)
        # The dry run tells the objects without the hooks, so those come from a rendering for no certain cluster.
        manifests = chart_objects.objects_of(rendered, helm_sdk.read_yaml)
        manifests += chart_objects.hooks_of(templates, helm_sdk.read_yaml)
        metadata = chart.metadata
        notes = templates.get(f"{metadata['name']}/templates/NOTES.txt")
        archive = chart_objects.finished_chart(metadata, manifests, labels=labels, notes=notes)
        return manifests, helm_sdk.archived(archive)

    def _wait(
        self,
        release: str,
        expected: Sequence[tuple[str, str]],
        deadline: Deadline,
        progress: Progress,
        alive: Callable[[], None],
    ) -> None:
        """Return once everything is ready. Raises `ReleaseError` at the deadline, or where waiting is of no use."""
        told = ""
        while waited := diagnosis.unready(seen := self._look(release, deadline), expected):
            alive()
            if (why := diagnosis.hopeless(seen)) is not None:
                raise ReleaseError(f"release {release} will not get ready: {why}")
            if deadline.remaining_s == 0:
                raise ReleaseError(f"release {release} was not ready in time")
            if (line := "; ".join(waited)) != told:
                told = line
                progress(f"{release}: waiting for {line}")
            time.sleep(min(LOOK_S, deadline.remaining_s))  # several kinds are looked at together: no watch tells of all

    def _look(self, release: str, deadline: Deadline) -> diagnosis.Seen:
        labels = {RELEASE_LABEL: release}
        try:
            return diagnosis.look(self._api, namespace=self._namespace, labels=labels, deadline=deadline)
        except RefusedError as refused:
            raise ReleaseError(f"the pods of release {release} can't be seen: {refused}") from None

    def _diagnose(self, release: str, hidden: set[str]) -> list[Trouble]:
        deadline = Deadline.within(TAKE_BACK_S)
        try:
            seen = self._look(release, deadline)
        except ClusterError:
            return []  # the failure that is to be explained must not be replaced by this one
        seen = diagnosis.with_words(self._api, seen, namespace=self._namespace, deadline=deadline)
        return diagnosis.diagnose(seen, hidden)

    def _take_back(self, helm: Helm, release: str, before: int, progress: Progress) -> str:
        """Undo whatever came after revision `before`; what was done, in words."""
        deadline = Deadline.within(TAKE_BACK_S)
        try:
            history = helm.history(release, deadline=deadline)
            if _newest(history) == before:
                return "nothing was changed"
            good = _good([one for one in history if one["revision"] <= before])
            if good is None:
                helm.uninstall(release, deadline=deadline)
                return "it was removed"
            progress(f"{release}: rolling back to revision {good}")
            helm.rollback(release, good, deadline=deadline)
        except ClusterError as error:
            return f"it could not be taken back: {error}"
        return f"it was rolled back to revision {good}"


def _newest(history: Sequence[Mapping[str, Any]]) -> int:
    """The number of the newest revision; 0 where there is none."""
    return history[-1]["revision"] if history else 0


def _release(told: Mapping[str, Any]) -> Release:
    return Release(
        name=told["name"],
        revision=told["revision"],
        status=told["status"],
        chart=f"{told['chart_name']}-{told['chart_version']}",
        deployed_at=datetime.fromisoformat(told["deployed_at"]),
    )


def _good(history: Sequence[Mapping[str, Any]]) -> int | None:
    """The newest revision that was once deployed whole."""
    return next((one["revision"] for one in reversed(history) if one["status"] in _GOOD), None)


def _is_served(definition: Mapping[str, Any]) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
