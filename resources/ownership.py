"""What says that an object of a cluster or a pool of Azure is ours: its labels or tags, and until when it may be there.

Belongs here: the names and values that the lease, every object, every pool and the reaper agree on; pure functions.
Doesn't belong here: asking a cluster (kube_leases.py) or Azure (node_pools_azure.py), leases of
local stacks (leases.py).

A lab's namespace is its lease: it is made before anything else of the lab, deleted after everything else, and nobody
can make it twice. Its labels say who holds it until when. Everything within goes with it. What lies outside of it (a
pool's nodes, an object of the whole cluster) carries the same labels and lives as long as that lease.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "lab-pipelines"
"""Value of `MANAGED_BY_LABEL` on every object that no chart brought; also the field manager of every write."""
LAB_LABEL = "lab"
"""Its value is the lab's id in lower case, e.g. `l06`, as among the spec's cost labels."""
RUN_LABEL = "run-id"
LEASE_LABEL = "lab-pipelines-lease"
"""The lease's id. Whatever carries it is ours; Helm's own objects have another `MANAGED_BY_LABEL`, which must stay."""
EXPIRES_LABEL = "lab-pipelines-expires"
"""Unix seconds, whole. A number without separators is a label value and an Azure tag alike."""

BY_HAND = "by-hand"
"""How the run's name begins where no run but somebody gave a pool nodes (`labs gpu up`): no namespace is its lease, and
its tag alone says until when."""

POOL_TAG = "lab-pipelines"
"""An Azure node pool is ours when it has this tag with the value `POOL_TAG_VALUE`; nobody but its owner sets it."""
POOL_TAG_VALUE = "managed"
NO_LEASE: Mapping[str, None] = {LEASE_LABEL: None, RUN_LABEL: None, EXPIRES_LABEL: None}
"""Tags to set when a pool's nodes are taken away. The lab's own stay: what is billed later is split by them."""

LEASE_TTL = timedelta(minutes=15)
"""How long a lease lasts without a renewal. An image pull is silent for less; an A100 costs a dollar in it."""
LONGEST = timedelta(hours=24)
"""No object of ours may be older, whatever its labels say: the last resort against labels that can't be read."""

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def lease_labels(cost_labels: Mapping[str, str], *, run_id: str, lease_id: str, expires_at: datetime) -> dict[str, str]:
    """The labels of everything that a lease holds; `cost_labels` are the spec's, the lab's own among them.

    `MANAGED_BY_LABEL` is not among them: whoever makes an object without a chart adds it.
    Raises `ValueError` for a value that no label may have.
    """
    labels = {
        **cost_labels,
        RUN_LABEL: run_id,
        LEASE_LABEL: lease_id,
        EXPIRES_LABEL: str(int(expires_at.timestamp())),
    }
    for key, value in labels.items():
        if _LABEL_VALUE.fullmatch(value) is None:
            raise ValueError(f"{key}={value!r} can't be a label's value: letters, digits, '-', '_', '.', at most 63")
    return labels


def labels_within(namespace_labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that a namespace of ours gives to what is in it: whose it is, and what it costs. Pure.

    Not until when: that changes with every renewal, and what is in a namespace goes with it.
    """
    return {key: value for key, value in namespace_labels.items() if "/" not in key and key != EXPIRES_LABEL}


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether an object's labels say that this project made it."""
    return LEASE_LABEL in labels


def pool_is_ours(tags: Mapping[str, str]) -> bool:
    """Whether a node pool's tags allow us to change it."""
    return tags.get(POOL_TAG) == POOL_TAG_VALUE


def expires_at(labels: Mapping[str, str], *, created_at: datetime) -> datetime:
    """Until when an object may be there: what its label says, and never longer than `LONGEST` after it was made.

    A label that is missing or no number counts as expired: an object of ours without an end is a mistake.
    """
    said = labels.get(EXPIRES_LABEL, "")
    if not re.fullmatch(r"[0-9]{1,11}", said):
        return created_at
    return min(datetime.fromtimestamp(int(said), UTC), created_at + LONGEST)


def why_over(labels: Mapping[str, str], *, created_at: datetime, now: datetime) -> str | None:
    """Why the reaper should remove an object of ours, or None while it is good. Pure: label and age alone."""
    end = expires_at(labels, created_at=created_at)
    if now < end:
        return None
    if labels.get(EXPIRES_LABEL, "") == "":
        return "its lease has no end, which no run of ours writes"
    return f"its lease expired at {end:%Y-%m-%d %H:%M:%S} UTC"


def pool_tag_until(tags: Mapping[str, str]) -> datetime | None:
    """The time in a pool's tags; None for a tag that is missing or no time."""
    said = tags.get(EXPIRES_LABEL, "")
    return datetime.fromtimestamp(int(said), UTC) if re.fullmatch(r"[0-9]{1,11}", said) else None


def is_by_hand(tags: Mapping[str, str]) -> bool:
    """Whether somebody, and no run, gave the pool its nodes."""
    return tags.get(RUN_LABEL, "").startswith(BY_HAND)


def why_pool_over(tags: Mapping[str, str], good_leases: Collection[str] | None, now: datetime) -> str | None:
    """Why a pool of ours should have no nodes, or None while it may. Pure.

    A pool's tags are written once, when it gets its nodes: renewing them with the lease would be an operation of a
    minute each time. So their time is no end while a run's lease lives, and `LONGEST` after it no lease can; for nodes
    that were given by hand it is the end. A pool without a lease's tag is not the reaper's: whether anybody uses it,
    the scale-to-zero sensor finds out. `good_leases`: None when they can't be read.
    """
    lease, said = tags.get(LEASE_LABEL), pool_tag_until(tags)
    if not lease:
        return "its tags tell of an end, and of no lease" if EXPIRES_LABEL in tags else None
    if is_by_hand(tags):
        held = said is not None and now < said <= now + LONGEST
        return None if held else "the time for which somebody gave it nodes is over"
    if good_leases is not None:
        return None if lease in good_leases else f"its lease {lease} has ended"
    if said is None:
        return "its lease has no end, which no run of ours writes"
    end = said + LONGEST
    return f"its lease can't have lasted beyond {end:%Y-%m-%d %H:%M:%S} UTC" if now >= end else None
