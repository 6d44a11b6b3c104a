"""The fault matrix: which faults there are, at which steps of a lab they happen, and how the run should then end.

Belongs here: data and its types. Doesn't belong here: what a cell goes through and how it is judged (fault_world.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Stack = Literal["bare", "engine", "load"]
"""`bare`: two variants on two kinds of nodes, and a manifest that is applied. `engine`: a Helm release in two variants,
stopped and started. `load`: one that is sent load."""
Service = Literal["kubernetes", "azure", "engine"]
How = Literal[
    "kill",
    "lose machine",
    "signal",
    "fill disk",
    "answer",
    "answer for good",
    "silence",
    "drop",
    "drop for good",
    "expire",
    "take over",
]
Ends = Literal["killed", "interrupted", "with an error", "well", "either"]


@dataclass(frozen=True)
class Step:
    """A moment of a run: one request of it, while a certain part of it is under way."""

    name: str
    stack: Stack
    part: str
    """As fault_run.py tells it."""
    service: Service
    method: str
    path: str
    """A regular expression; the first request that matches is it."""


@dataclass(frozen=True)
class Fault:
    """What happens while that request is under way."""

    name: str
    how: How
    ends: Ends
    leaves: bool = False
    """Whether the run may leave something behind: it could not act any more, or nobody could."""
    signal: int = 0
    status: int = 0
    code: str = ""
    message: str = ""
    retry_after: str | None = None
    times: int = 1
    carried_out: bool = False


@dataclass(frozen=True)
class Cell:
    fault: Fault
    step: Step

    def __str__(self) -> str:
        return f"{self.fault.name} as {self.step.name}"


NAMESPACES = r"^/api/v1/namespaces(\?|$)"
LEASE_TAKEN = Step("the lease is taken", "bare", "deploy", "kubernetes", "POST", NAMESPACES)
NODES_ASKED = Step("nodes are asked for", "bare", "deploy", "azure", "PUT", "/agentPools/t4")
NODES_ARRIVE = Step("nodes arrive", "bare", "deploy", "azure", "GET", "/operations/")
GUARDED = Step("the namespace is guarded", "bare", "deploy", "kubernetes", "PATCH", "/networkpolicies/within-the-lab")
RECORDED = Step("the session is recorded", "bare", "deploy", "kubernetes", "PATCH", "/configmaps/lab-session")
APPLIED = Step("a manifest is applied", "bare", "small: first-gpu", "kubernetes", "PATCH", "/pods/first-gpu")
WATCHED = Step("its pods are watched", "bare", "small: first-gpu", "kubernetes", "GET", "watch=true")
SWITCHED_FROM = Step("the former nodes go", "bare", "switch", "azure", "PUT", "/agentPools/t4")
SWITCHED_TO = Step("other nodes come", "bare", "switch", "azure", "PUT", "/agentPools/a100")
NODES_RETURN = Step("nodes are given back", "bare", "release", "azure", "PUT", "/agentPools/a100")
NODES_LEAVE = Step("nodes leave", "bare", "release", "azure", "GET", "/operations/")
DELETED = Step(
    "the namespace is deleted", "bare", "release", "kubernetes", "DELETE", "^/api/v1/namespaces/lab-07(\\?|$)"
)

INSTALLED = Step("the release is installed", "engine", "deploy", "kubernetes", "PATCH", "/deployments/vllm")
HELM_RECORDED = Step("Helm records the release", "engine", "deploy", "kubernetes", "POST", "/secrets")
AWAITED = Step("pods are waited for", "engine", "deploy", "kubernetes", "GET", "/pods\\?labelSelector=")
FIRST_TOKEN = Step("the first token is asked for", "engine", "deploy", "engine", "POST", "/completions")
LOADED = Step("load is under way", "load", "one: load", "engine", "POST", "/completions")
STOPPED = Step("the engine is stopped", "engine", "one: stop", "kubernetes", "PATCH", "/deployments/vllm")
STARTED = Step("the engine is started", "engine", "one: start", "kubernetes", "PATCH", "/deployments/vllm")
UPGRADED = Step("the next variant is installed", "engine", "switch", "kubernetes", "PATCH", "/deployments/vllm")
SERVES_AGAIN = Step("the next variant serves", "engine", "switch", "engine", "POST", "/completions")

_OWN = "^/api/v1/namespaces/lab-07$"
LEASE_READ = (
    Step("the lease is read for the guards", "bare", "deploy", "kubernetes", "GET", _OWN),
    Step("the lease is read for a manifest", "bare", "small: first-gpu", "kubernetes", "GET", _OWN),
    Step("the lease is read for a switch", "bare", "switch", "kubernetes", "GET", _OWN),
    Step("the lease is read for the end", "bare", "release", "kubernetes", "GET", r"^/api/v1/namespaces\?label"),
)

BARE = (
    LEASE_TAKEN, NODES_ASKED, NODES_ARRIVE, GUARDED, RECORDED, APPLIED, WATCHED, SWITCHED_FROM, SWITCHED_TO,
    NODES_RETURN, NODES_LEAVE, DELETED,
)  # fmt: skip
ENGINE = (
    INSTALLED, HELM_RECORDED, AWAITED, FIRST_TOKEN, LOADED, STOPPED, STARTED, UPGRADED, SERVES_AGAIN,
)  # fmt: skip
STEPS = (*BARE, *ENGINE)

KILLED = Fault("kill -9", "kill", "killed", leaves=True)
LOST_MACHINE = Fault("its machine is lost", "lose machine", "killed", leaves=True)
SIGTERM = Fault("SIGTERM", "signal", "interrupted", signal=15)
CANCELLED = Fault("a cancel", "signal", "interrupted", signal=2)
FULL_DISK = Fault("a full disk", "fill disk", "with an error")
FULL_DISK_LATE = Fault("a full disk after the last row", "fill disk", "well")
TAKEN_OVER = Fault("another run has taken over", "take over", "with an error")

K500 = Fault("one API 500", "answer", "either", status=500, code="InternalError", message="etcdserver: leader changed")
K500_RIDDEN_OUT = replace(K500, name="one API 500, ridden out,", ends="well")
K500_FOR_GOOD = Fault(
    "API 500 for good", "answer for good", "with an error", leaves=True,
    status=500, code="InternalError", message="etcdserver: request timed out",
)  # fmt: skip
K429 = Fault(
    "three API 429", "answer", "well", status=429, code="TooManyRequests",
    message="too many requests, please try again later", retry_after="0", times=3,
)  # fmt: skip
K429_TO_A_WATCH = replace(K429, name="API 429 to a watch", times=1)
KSILENT = Fault("an API that never answers", "silence", "with an error", leaves=True)
K410 = Fault("410 on a watch", "expire", "well")
K410_AT_ONCE = Fault("410 to a watch", "answer", "well", status=410, code="Expired", message="too old resource version")
DROPPED = Fault("a lost connection", "drop", "either")
DROPPED_RIDDEN_OUT = replace(DROPPED, name="a lost connection, ridden out,", ends="well")
ANSWER_LOST = Fault("a lost answer", "drop", "either", carried_out=True)
NO_NETWORK = Fault("no network for good", "drop for good", "with an error", leaves=True)

A409 = Fault(
    "two Azure 409", "answer", "well", status=409, code="OperationNotAllowed", times=2,
    message="Operation is not allowed: Another operation (Updating) is in progress, please wait for it to finish.",
)  # fmt: skip
A412 = Fault("Azure 412", "answer", "well", status=412, code="PreconditionFailed", message="The etag does not match.")
A429 = Fault(
    "three Azure 429", "answer", "well", status=429, code="TooManyRequests", message="Slow down.", retry_after="0",
    times=3,
)  # fmt: skip
A500 = Fault("one Azure 500", "answer", "well", status=500, code="InternalServerError", message="An error occurred.")
A503_FOR_GOOD = Fault(
    "Azure 503 for good", "answer for good", "with an error", leaves=True, status=503, code="ServiceUnavailable",
    message="The service is unavailable.",
)  # fmt: skip


def cells() -> Iterator[Cell]:
    """Every cell, a fault at a step."""
    anywhere = (KILLED, LOST_MACHINE, SIGTERM, CANCELLED)
    yield from (Cell(fault, step) for step in STEPS for fault in anywhere)
    disk = (NODES_ASKED, NODES_ARRIVE, RECORDED, APPLIED, SWITCHED_FROM, SWITCHED_TO, FIRST_TOKEN, LOADED, UPGRADED)
    yield from (Cell(FULL_DISK, step) for step in disk)
    yield from (Cell(FULL_DISK_LATE, step) for step in (NODES_RETURN, DELETED))
    yield from (Cell(TAKEN_OVER, step) for step in (*LEASE_READ, SWITCHED_TO))
    written = (LEASE_TAKEN, GUARDED, RECORDED, APPLIED, DELETED, INSTALLED, STOPPED)
    yield from (Cell(fault, step) for step in written for fault in (K500, K500_FOR_GOOD, DROPPED, ANSWER_LOST))
    yield from (Cell(K429, step) for step in (LEASE_TAKEN, GUARDED, RECORDED, APPLIED, DELETED, AWAITED, STOPPED))
    yield from (Cell(KSILENT, step) for step in (LEASE_TAKEN, GUARDED, RECORDED, APPLIED, DELETED, AWAITED))
    yield from (
        Cell(fault, WATCHED) for fault in (K410, K410_AT_ONCE, K429_TO_A_WATCH, K500_RIDDEN_OUT, DROPPED_RIDDEN_OUT)
    )
    yield from (Cell(fault, step) for step in LEASE_READ for fault in (K500_RIDDEN_OUT, DROPPED_RIDDEN_OUT))
    pools = (NODES_ASKED, SWITCHED_FROM, SWITCHED_TO, NODES_RETURN)
    yield from (Cell(fault, step) for step in pools for fault in (A409, A412))
    polled = (*pools, NODES_ARRIVE, NODES_LEAVE)
    yield from (Cell(fault, step) for step in polled for fault in (A429, A500, A503_FOR_GOOD))
    yield from (Cell(fault, step) for step in pools for fault in (DROPPED, ANSWER_LOST))
    away = (LEASE_TAKEN, NODES_ASKED, NODES_ARRIVE, RECORDED, APPLIED, SWITCHED_TO, NODES_RETURN, DELETED)
    yield from (Cell(NO_NETWORK, step) for step in (*away, LOADED))
