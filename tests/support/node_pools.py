"""A cluster's node pools in a file: what NodePools promises, with Azure's own refusals, and nothing behind it.

Every write makes a new ETag, as Azure does. The pools live in a file, because Dagster makes a resource anew for each
evaluation. Doesn't belong here: Azure's protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resources import node_holds
from resources.cluster import ClusterError, Lease, Progress, Reaped
from resources.cluster_local import LocalCluster
from resources.kube_api import Deadline
from resources.node_pools import NodePool, NodePools, PoolChangedError, PoolError, Scaled

T4 = "Standard_NC4as_T4_v3"


def node_pool(name: str = "t4", **fields: Any) -> NodePool:
    """A pool of ours with one node, unless `fields` say otherwise."""
    return NodePool(
        **{
            "name": name,
            "vm_size": T4,
            "mode": "User",
            "count": 1,
            "autoscaled": False,
            "spot": False,
            "tags": {"lab-pipelines": "managed"},
            "labels": {},
            "taints": ["sku=gpu:NoSchedule"],
            "state": "Succeeded",
            "etag": "1",
        }
        | fields
    )


class FilePools(NodePools):
    """The pools in `folder`; `asked` there has one line for each call."""

    folder: str

    def put(self, *pools: NodePool) -> None:
        """Have these pools, and no others."""
        (Path(self.folder) / "pools.json").write_text(json.dumps([pool.model_dump() for pool in pools]))

    def touch(self, name: str, **fields: Any) -> None:
        """Somebody else changes a pool."""
        found = self.read()
        for number, pool in enumerate(found):
            if pool.name == name:
                found[number] = pool.model_copy(update={"etag": str(int(pool.etag or 0) + 1), **fields})
        self.put(*found)

    def read(self) -> list[NodePool]:
        if not (Path(self.folder) / "pools.json").exists():
            return []
        return [NodePool(**one) for one in json.loads((Path(self.folder) / "pools.json").read_text())]

    def calls(self) -> list[str]:
        """What was asked so far."""
        asked = Path(self.folder) / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    def pools(self) -> list[NodePool]:
        self._note("pools")
        return self.read()

    def pool(self, name: str) -> NodePool:
        self._note(f"pool {name}")
        for pool in self.read():
            if pool.name == name:
                return pool
        raise PoolError(f"there is no pool {name}")

    def scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> Scaled:
        self._note(f"scale {pool.name} {pool.count}->{count}")
        found = next(one for one in self.read() if one.name == pool.name)
        if found.etag != pool.etag:
            raise PoolChangedError(f"{pool.name} has changed since it was read")
        if not found.ours:
            raise PoolError(f"{pool.name} isn't ours")
        if found.mode == "System" and count == 0:
            raise PoolError(f"{pool.name} is a system pool and can't reach zero")
        kept = {**found.tags, **tags}
        self.touch(pool.name, count=count, tags={key: value for key, value in kept.items() if value is not None})
        at = datetime.now(UTC)
        return Scaled(pool=pool.name, before=found.count, after=count, requested_at=at, done_at=at)

    def begin_scale(
        self, pool: NodePool, count: int, *, tags: Mapping[str, str | None], deadline: Deadline, progress: Progress
    ) -> datetime:
        return self.scale(pool, count, tags=tags, deadline=deadline, progress=progress).requested_at

    def _note(self, line: str) -> None:
        with (Path(self.folder) / "asked").open("a") as asked:
            asked.write(f"{line}\n")


class LeasedCluster(LocalCluster):
    """A local cluster whose leases are those in `leases.json` of `data_dir`, so that a test can write them.

    Its nodes are those of the `FilePools` in the same folder.
    """

    def node_pools(self) -> NodePools:
        return FilePools(folder=self.data_dir)

    def put(self, *leases: Lease) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps([lease.model_dump(mode="json") for lease in leases]))

    def leases(self) -> list[Lease]:
        if (Path(self.data_dir) / "unreachable").exists():
            raise ClusterError("the API server can't be reached")
        return [Lease(**one) for one in json.loads(self._file.read_text())] if self._file.exists() else []

    def release(self, lab: str, *, run_id: str | None = None) -> datetime | None:
        left = [lease for lease in self.leases() if lease.lab != lab or run_id not in (None, lease.run_id)]
        if len(left) == len(self.leases()):
            return None
        self.put(*left)
        return datetime.now(UTC)

    def reap(self) -> list[Reaped]:
        node_pools, now = self.node_pools(), datetime.now(UTC)
        pools = node_pools.pools()
        over = [lease for lease in self.leases() if lease.expires_at <= now]
        good = [lease for lease in self.leases() if lease.expires_at > now]
        self.put(*good)
        ended = [
            Reaped(lease_id=one.lease_id, lab=one.lab, run_id=one.run_id, reason="its lease expired", removed=["all"])
            for one in over
        ]
        ids = {lease.lease_id for lease in good}
        return [*ended, *node_holds.reap(node_pools, pools, good=ids, now=now, deadline=Deadline.within(10.0))]

    @property
    def _file(self) -> Path:
        return Path(self.data_dir) / "leases.json"
