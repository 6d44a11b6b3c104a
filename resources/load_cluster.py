"""Load from within the cluster: a distributed Locust as Jobs in the lab's namespace, its records back through the lake.

Belongs here: starting those Jobs, following them to their end, collecting what they wrote, and taking them away.
Doesn't belong here: their manifests and what their status means (load_jobs.py), what runs in a pod (load_pod.py), the
files in the lake (load_incoming.py), merging them (load_records.py).
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from resources import kube_api, kube_namespace, kube_secrets, load_incoming, manifests, ownership
from resources.cluster import ClusterError, Endpoint, Progress
from resources.helm import RELEASE_LABEL
from resources.kube_api import Deadline, RefusedError
from resources.kube_leases import NamespaceLeases
from resources.kube_pods import ReleasePods
from resources.kube_reach import service_of
from resources.kube_timeline import LogLine
from resources.load_generator import LoadError, LoadGenerator, LoadPlan, LoadResult
from resources.load_incoming import IncomingError
from resources.load_jobs import (
    CONTAINER,
    START_S,
    ClusterLoad,
    Look,
    failed_pods,
    is_master,
    look,
    master_job,
    rest_of,
    workers_for,
)
from resources.load_locust import LOG_FILE, last_words
from resources.load_records import begin_folder, whole_result
from resources.redaction import redacted

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = Mapping[str, Any]

ASK_S = 60.0
"""For what is asked of the API server in passing."""
LOOK_EVERY_S = 1.0
TELL_EVERY_S = 15.0
SILENT_S = 120.0
"""How long the API server may be away. The Jobs go on without it, and without us."""
SLACK_S = 30.0
"""Beyond the Jobs' own deadline, so that they say it first."""
GONE_S = 60.0
"""For pods to go away: their grace period, and the cluster's own garbage collection."""
STAGE = "stage "
"""What a line of progress begins with, among all that Locust logs (load-tests/locust/streaming_load/stages.py)."""


class ClusterLoadGenerator(LoadGenerator):
    """Applies a plan with Locust's master and workers as pods beside the stack, in the namespace that the plan's base
    URL names. Their records come back through `lake_url`, which the pods and this process must both reach.

    The pods carry the lease's labels, by which a reaper finds them; the environment that `run` is given marks processes
    of this machine, of which there are none.
    """

    lake_url: str
    image: str
    kubeconfig: str | None = None
    context: str | None = None
    workers: int | None = Field(default=None, ge=1)
    """None: by the plan (load_jobs.workers_for)."""
    secret: str | None = None
    """What the pods need to write to the lake: a Secret whose keys become their environment."""
    secret_store: str | None = None
    secrets_namespace: str | None = None
    """Where that Secret comes from, as those of the labs do."""

    _client: Any = PrivateAttr(default=None)
    """An `ApiClient`, once it was needed."""

    def address(self, endpoint: Endpoint) -> str | None:
        return endpoint.cluster_url

    def run(self, plan: LoadPlan, *, workdir: Path, environ: dict[str, str], progress: Progress) -> LoadResult:
        begin_folder(workdir, plan)
        service = service_of(plan.base_url)
        if service is None:
            raise LoadError(
                f"{plan.base_url} is no service of the cluster, so no pod can be sent there; set LABS_LOAD=here"
            )
        now, load_id = datetime.now(UTC), uuid.uuid4().hex[:10]
        load = ClusterLoad(
            load_id=load_id,
            plan=plan,
            workers=self.workers or workers_for(plan),
            image=self.image,
            incoming=load_incoming.folder_of(self.lake_url, load_id, now=now),
            secret=self.secret,
        )
        try:
            load_incoming.sweep(self.lake_url, now=now)
            with self._running(load, service.namespace, progress) as jobs:
                jobs.follow(workdir / LOG_FILE)
                self._collect(load, jobs.pods(), workdir)
        except (ClusterError, IncomingError) as error:
            raise LoadError(str(error)) from error
        finally:
            # After the pods are gone: what one of them brings too late would stay.
            _quietly(lambda: load_incoming.remove(load.incoming), progress)
        return whole_result(workdir, plan, remedy=f"The log of Locust's master is {workdir / LOG_FILE}")

    @contextlib.contextmanager
    def _running(self, load: ClusterLoad, namespace: str, progress: Progress) -> Generator[_Jobs, None, None]:
        """The load's Jobs, begun; whatever happens, they are deleted, and their pods with them."""
        jobs = _Jobs(self._api, load, namespace, progress)
        labels = self._labels(namespace, load.plan)
        self._bring_secret(namespace, labels)
        try:
            jobs.begin(labels)
            yield jobs
        finally:
            _quietly(jobs.end, progress)

    def _labels(self, namespace: str, plan: LoadPlan) -> dict[str, str]:
        """What every object of the lease carries. Raises `LoadError` when the lease is gone."""
        held = NamespaceLeases(self._api).read(namespace, deadline=Deadline.within(ASK_S))
        if held is None or held.terminating or held.lease.run_id != plan.run_id:
            raise LoadError(f"the lease on {namespace} is gone: its stack was released or reaped meanwhile")
        return ownership.labels_within(held.labels)

    def _bring_secret(self, namespace: str, labels: Mapping[str, str]) -> None:
        if self.secret is None:
            return
        deadline = Deadline.within(ASK_S)
        if self.secret_store is not None:
            objects = kube_namespace.external_secrets([self.secret], store=self.secret_store)
            refusal = manifests.apply(self._api, objects, namespace=namespace, labels=labels, deadline=deadline)
            if refusal is not None:
                raise LoadError(f"{namespace} can't have what the lake asks for: {refusal}")
        elif self.secrets_namespace is not None:
            source = self.secrets_namespace
            kube_secrets.copy(
                self._api, [self.secret], source=source, namespace=namespace, labels=labels, deadline=deadline
            )

    @staticmethod
    def _collect(load: ClusterLoad, pods: Sequence[Json], workdir: Path) -> None:
        """Every pod's files to `workdir`. Raises `LoadError` for a pod that ended well and brought none."""
        brought = set(load_incoming.fetch(load.incoming, workdir))
        if missing := sorted({pod["metadata"]["name"] for pod in pods} - brought):
            raise LoadError(
                f"the records of {', '.join(missing)} are not at {load.incoming}, though those pods ended well; "
                "LABS_LAKE_URL must name the same place for a pod and for this process"
            )

    @property
    def _api(self) -> ApiClient:
        if self._client is None:
            self._client = kube_api.connect(Path(self.kubeconfig) if self.kubeconfig else None, self.context)
        return self._client


@dataclass
class _Jobs:
    """The Jobs of one load, as the API server knows them."""

    api: ApiClient
    load: ClusterLoad
    namespace: str
    progress: Progress
    _heard: Sequence[LogLine] = ()
    """The master's log when it was last read."""
    _told_until: datetime | None = None
    """The stamp of the last of its lines that was passed on."""

    def begin(self, labels: Mapping[str, str]) -> None:
        """Raises `LoadError` where the API server refuses them, `ClusterError`."""
        deadline = Deadline.within(ASK_S)
        self._apply([master_job(self.load)], labels, deadline)
        master = self._ask("GET", self._master, deadline)
        if master is None:
            raise LoadError(f"{self._master} is gone as soon as it was made; who else deletes Jobs there?")
        rest = rest_of(self.load, namespace=self.namespace, master_uid=master["metadata"]["uid"])
        self._apply(rest, labels, deadline)
        self.progress(f"{self.load.name} begins with {self.load.workers} workers in {self.namespace}")

    def follow(self, log: Path) -> None:
        """Return once every pod has ended well; the master's log is kept in `log`, its progress passed on.

        Raises `LoadError` for a load that doesn't start, fails, or doesn't end in time.
        """
        starts, ends = Deadline.within(START_S), Deadline.within(self.load.longest_s + SLACK_S)
        answered, told, told_at, ran = time.monotonic(), "", time.monotonic(), False
        while True:
            try:
                seen = self._look(log)
                answered = time.monotonic()
            except ClusterError as error:
                if time.monotonic() - answered > SILENT_S:
                    raise LoadError(f"{self.load.name} can't be followed any more: {error}") from error
                seen = Look("unknown", str(error))
            match seen.state:
                case "done":
                    return
                case "failed":
                    raise LoadError(self._words(f"{self.load.name} failed: {seen.said}"))
                case "running":
                    ran = True
                case "starting" if ran:
                    raise LoadError(self._words(f"{self.load.name} has lost a pod: {seen.said}"))
                case "starting" if starts.remaining_s == 0:
                    raise LoadError(self._words(f"{self.load.name} did not start within {START_S:.0f} s: {seen.said}"))
            if ends.remaining_s == 0:
                raise LoadError(self._words(f"{self.load.name} did not end in time: {seen.said or 'it still runs'}"))
            if seen.said and (seen.said != told or time.monotonic() - told_at > TELL_EVERY_S):
                self.progress(f"{self.load.name}: {seen.said}")
                told, told_at = seen.said, time.monotonic()
            time.sleep(LOOK_EVERY_S)  # Jobs, pods and a log: no single watch tells of them

    def pods(self) -> list[Json]:
        return self._pods.all(Deadline.within(ASK_S))

    def end(self) -> None:
        """Delete the master's Job, and with it all that it owns. Raises `ClusterError` where a pod is left."""
        # A Job deleted through the API leaves its pods unless it is told not to.
        self._ask("DELETE", self._master, Deadline.within(ASK_S), query={"propagationPolicy": "Background"})
        self._pods.wait_until_gone(Deadline.within(GONE_S))

    # --- What is asked ---

    def _look(self, log: Path) -> Look:
        deadline = Deadline.within(kube_api.READ_TIMEOUT_S)
        selector = {"labelSelector": f"{RELEASE_LABEL}={self.load.name}"}
        jobs = (self._ask("GET", self._root, deadline, query=selector) or {"items": []})["items"]
        pods = self._pods.all(deadline)
        # After the pods: a master that has ended has said all that it will.
        for pod in filter(is_master, pods):
            self._relay(self._log(pod, deadline), log)
        seen = look(self.load, jobs, pods)
        if seen.state == "starting" and len(pods) < self.load.pods:
            # Pods that a quota or an admission policy refuses aren't there to say so; their Job's events do.
            events = [event for job in jobs for event in self._pods.events(job, deadline)]
            refused = [str(event["message"]) for event in events if event.get("reason") == "FailedCreate"]
            seen = Look("starting", "; ".join([seen.said, *refused[-1:]]))
        return seen

    def _relay(self, lines: Sequence[LogLine], log: Path) -> None:
        self._heard = lines or self._heard
        log.write_text("".join(f"{line.text}\n" for line in self._heard), encoding="utf-8")
        for line in lines:
            if line.text.startswith(STAGE) and (self._told_until is None or line.at > self._told_until):
                self._told_until = line.at
                self.progress(line.text)

    def _log(self, pod: Json, deadline: Deadline) -> list[LogLine]:
        return self._pods.log(pod, container=CONTAINER, deadline=deadline)

    def _words(self, said: str) -> str:
        """`said`, with the last words of the pods that failed, else of the master."""
        deadline, logs = Deadline.within(kube_api.READ_TIMEOUT_S), dict[str, Sequence[LogLine]]()
        with contextlib.suppress(ClusterError):  # what is known already is worth saying without them
            logs = {pod["metadata"]["name"]: self._log(pod, deadline) for pod in failed_pods(self.pods())}
        if not any(logs.values()):
            logs = {self.load.job("master"): self._heard}
        lines = [said]
        for name, log in logs.items():
            if words := last_words([line.text for line in log]):
                lines += [f"From the log of {name}:", *words]
        return redacted("\n".join(lines))

    def _apply(self, objects: Sequence[manifests.Manifest], labels: Mapping[str, str], deadline: Deadline) -> None:
        refusal = manifests.apply(self.api, objects, namespace=self.namespace, labels=labels, deadline=deadline)
        if refusal is not None:
            raise LoadError(f"{self.load.name} is refused in {self.namespace}: {refusal}")

    def _ask(self, method: str, path: str, deadline: Deadline, *, query: Mapping[str, str] | None = None) -> Any:
        """The answer, None where there is no such object. Raises `ClusterError`."""
        try:
            return kube_api.request(self.api, method, path, query=query, deadline=deadline)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise ClusterError(f"{path}: {refused}") from None

    @property
    def _pods(self) -> ReleasePods:
        return ReleasePods(self.api, self.namespace, self.load.name)

    @property
    def _root(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def _master(self) -> str:
        return f"{self._root}/{self.load.job('master')}"


def _quietly(take_away: Callable[[], object], progress: Progress) -> None:
    """As the load ends, it has a result or an error already, and what is left ends by its own time."""
    try:
        take_away()
    except (ClusterError, IncomingError) as error:
        progress(f"left behind, to end by its own time: {error}")
