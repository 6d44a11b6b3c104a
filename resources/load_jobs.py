"""One load as objects of a cluster: Locust's master and workers as Jobs, the plan they follow, and how they meet.

Belongs here: pure functions from a plan to manifests, and from the Jobs' and pods' own words to how the load is.
Doesn't belong here: asking the API server (load_cluster.py), or what runs in a pod (load_pod.py).

The master's Job owns the other objects, so one deletion takes all of them, whoever makes it: the generator, the Job's
own time to live, or the lease's namespace as it goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resources.helm import RELEASE_LABEL
from resources.load_generator import LoadPlan, StagePlan
from resources.load_locust import locust_arguments
from resources.manifests import Manifest, pod_outcome
from resources.ownership import MANAGED_BY, MANAGED_BY_LABEL

Json = Mapping[str, Any]
Role = Literal["master", "worker"]

USERS_PER_WORKER = 200
REQUESTS_PER_WORKER = 100.0
"""Requests per second of an open loop. Both leave a worker's core half idle at the token rates of the catalogue's
engines, or more of it: a streamed event costs it 22 to 35 µs (docs/benchmarks.md), and 200 users at 20 ms per token are
10,000 events a second."""
MOST_WORKERS = 8

START_S = 600.0
"""For the pods to run and the workers to find their master: a node may have to pull the image first."""
END_S = 180.0
"""For Locust to end its users, and for the pods to bring their records to the lake."""
LEFT_S = 600
"""How long ended Jobs stay where nobody is left to delete them."""
GRACE_S = 10

CONTAINER = "locust"
ROLE_LABEL = "app.kubernetes.io/component"
PORT = 5557
"""Of Locust's master, its own default."""
USER = 10001
"""The image's own user (deploy/Dockerfile), by number, since `runAsNonRoot` can't tell whether a name is root's."""
LOCUSTFILE = "load-tests/locust/locustfile.py"
PLAN_FOLDER = "/etc/load"
SCRATCH = "/scratch"
"""All that a pod may write to."""
RECORDS = f"{SCRATCH}/records"

_HOPELESS = frozenset({"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"})
"""Why a container waits when waiting is of no use: the image has failed twice, or can't be there at all. A GPU may be
paid for meanwhile."""


@dataclass(frozen=True)
class ClusterLoad:
    """One load in a cluster."""

    load_id: str
    plan: LoadPlan
    workers: int
    image: str
    lake_url: str
    incoming: str
    """The folder of the lake that each pod brings its records to."""
    secret: str | None = None
    """A Secret of the namespace whose keys are the pods' environment: what the lake asks for."""

    @property
    def name(self) -> str:
        """Of the load's Service and ConfigMap, and the value of `RELEASE_LABEL` on all that it consists of."""
        return f"load-{self.load_id}"

    def job(self, role: Role) -> str:
        """The name of a Job."""
        return f"{self.name}-{role}"

    @property
    def pods(self) -> int:
        return self.workers + 1

    @property
    def longest_s(self) -> float:
        """From the Jobs' creation to their end."""
        return START_S + sum(stage.max_hold_wall_s for stage in self.plan.stages) + END_S


def workers_for(plan: LoadPlan) -> int:
    """How many workers a plan is given: one for each `USERS_PER_WORKER` users or `REQUESTS_PER_WORKER` requests per
    second of its largest stage, at most `MOST_WORKERS`. Pure."""
    users = max(stage.users or 0 for stage in plan.stages) / USERS_PER_WORKER
    requests = max(_highest_rate(stage) for stage in plan.stages) / REQUESTS_PER_WORKER
    return min(max(math.ceil(users), math.ceil(requests), 1), MOST_WORKERS)


def _highest_rate(stage: StagePlan) -> float:
    """Requests per second; of a trace the mean, and what it has more at times is what `LABS_LOAD_WORKERS` is for."""
    return max(per_s for _, per_s in stage.points) if stage.points else stage.per_wall_s or 0.0


# --- Manifests ---


def master_job(load: ClusterLoad) -> Manifest:
    """The Job that is written first and deleted last."""
    waits = ["--expect-workers", str(load.workers), "--expect-workers-max-wait", f"{START_S:.0f}"]
    return _job(
        load,
        "master",
        pods=1,
        locust=["--master", "--master-bind-port", str(PORT), *waits],
        resources={"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
    )


def rest_of(load: ClusterLoad, *, namespace: str, master_uid: str) -> list[Manifest]:
    """What belongs to the master's Job, whose uid the API server gave it."""
    # A worker that weren't told of the others would number its users as if it were the only one.
    master = ["--master-host", f"{load.name}.{namespace}.svc", "--master-port", str(PORT)]
    workers = _job(
        load,
        "worker",
        pods=load.workers,
        locust=["--worker", *master, "--expect-workers", str(load.workers)],
        # No limit of CPU: a throttled client is late in reading, and calls that the server's latency.
        resources={"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
    )
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": load.name, "labels": _labels(load)},
        "spec": {
            "clusterIP": "None",
            # Workers may look for their master before its readiness has been noted.
            "publishNotReadyAddresses": True,
            "selector": {RELEASE_LABEL: load.name, ROLE_LABEL: "master"},
            "ports": [{"name": "locust", "port": PORT, "targetPort": PORT}],
        },
    }
    plan = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": load.name, "labels": _labels(load)},
        "data": {"plan.json": load.plan.model_dump_json()},
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": load.job("master"), "uid": master_uid}
    objects: list[Manifest] = [plan, service, workers]
    for one in objects:
        one["metadata"]["ownerReferences"] = [owner]
    return objects


def _job(load: ClusterLoad, role: Role, *, pods: int, locust: Sequence[str], resources: Json) -> Manifest:
    labels = {**_labels(load), ROLE_LABEL: role}
    arguments = locust_arguments(LOCUSTFILE, plan=f"{PLAN_FOLDER}/plan.json", records=RECORDS)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": load.image,
        "command": ["python", "-m", "resources.load_pod"],
        "args": ["--records", RECORDS, "--lake", load.lake_url, "--incoming", load.incoming, "--", *arguments, *locust],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "HOME", "value": SCRATCH},
            {"name": "TMPDIR", "value": SCRATCH},
        ],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "plan", "mountPath": PLAN_FOLDER, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
        ],
    }
    if load.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": load.secret}}]
    if role == "master":
        container["ports"] = [{"name": "locust", "containerPort": PORT}]
    pod = {
        # On no node with a taint, and so on no GPU's. One that fails is no load any more, however soon it is back.
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "plan", "configMap": {"name": load.name}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    # An autoscaler that thinks a node is better empty would end the load.
    annotations = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": load.job(role), "labels": labels},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(load.longest_s),
            "ttlSecondsAfterFinished": LEFT_S,
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    }


def _labels(load: ClusterLoad) -> dict[str, str]:
    return {RELEASE_LABEL: load.name, MANAGED_BY_LABEL: MANAGED_BY}


# --- How it is ---


@dataclass(frozen=True)
class Look:
    """How a load was when it was looked at; `said` is what holds it up, or has ended it. Unknown: nobody answered."""

    state: Literal["unknown", "starting", "running", "failed", "done"]
    said: str = ""


def look(load: ClusterLoad, jobs: Sequence[Json], pods: Sequence[Json]) -> Look:
    """What the load's Jobs and pods say of it. Pure."""
    # A pod's own words say more than its Job's: that it had no second try.
    if failed := [_outcome(pod) for pod in pods if _has_failed(pod)] or _jobs_that_failed(jobs):
        return Look("failed", "; ".join(failed))
    phases = [(pod.get("status") or {}).get("phase") for pod in pods]
    if phases.count("Succeeded") == load.pods:
        return Look("done")
    if len(pods) == load.pods and all(phase in ("Running", "Succeeded") for phase in phases):
        return Look("running")
    held_up = [_outcome(pod) for pod, phase in zip(pods, phases, strict=True) if phase == "Pending"]
    return Look("starting", "; ".join(held_up) or f"{len(pods)} of {load.pods} pods are there")


def _outcome(pod: Json) -> str:
    outcome = pod_outcome(pod)
    return f"{outcome.name} is {outcome.phase}{f': {outcome.reason}' if outcome.reason else ''}"


def _has_failed(pod: Json) -> bool:
    status = pod.get("status") or {}
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in status.get("containerStatuses") or []]
    return status.get("phase") == "Failed" or any(one.get("reason") in _HOPELESS for one in waiting)


def _jobs_that_failed(jobs: Sequence[Json]) -> list[str]:
    return [
        f"Job {job['metadata']['name']}: {one.get('reason')}: {one.get('message')}"
        for job in jobs
        for one in (job.get("status") or {}).get("conditions") or []
        if one["type"] == "Failed" and one["status"] == "True"
    ]


def failed_pods(pods: Sequence[Json]) -> list[Json]:
    """Those whose own log may say why the load failed."""
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Failed"]


def is_master(pod: Json) -> bool:
    return pod["metadata"]["labels"].get(ROLE_LABEL) == "master"
