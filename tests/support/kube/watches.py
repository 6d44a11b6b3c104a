"""Watches: every change to a collection after a version, as a client asks for it.

Belongs here: what a watch tells and when it ends. Doesn't belong here: how it is written to a connection.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterator, Mapping

from tests.support.kube import selectors
from tests.support.kube.kinds import Json
from tests.support.kube.objects import Asked
from tests.support.kube.store import Change, Store

SHORTEST_S = 300.0
"""How long a watch lasts whose client gives no time, at the least; a real server draws one up to twice that."""
FROM_THE_START = ("", "0")


def events(store: Store, asked: Asked, query: Mapping[str, str], *, ends: Callable[[], bool]) -> Iterator[Json]:
    """Each change as a watch event, until its time is over or `ends` says so.

    Without a version, and with `sendInitialEvents`, first what there is, as if it were new.
    """
    matches = selectors.of_query(asked.kind, query)
    until = time.monotonic() + float(query.get("timeoutSeconds") or SHORTEST_S)
    initial = query.get("sendInitialEvents") == "true"
    with store.changed:
        last = store.version
        namespace = asked.namespace if asked.kind.namespaced else ""
        there = [one for key in store.keys(asked.kind.resource, namespace) if matches(one := store.get(key) or {})]
        if initial or query.get("resourceVersion", "") in FROM_THE_START:
            begun = [{"type": "ADDED", "object": one} for one in there]
        else:
            begun, last = [], int(query["resourceVersion"])
    yield from begun
    if initial:
        yield _bookmark(asked, last)
    while True:
        with store.changed:
            new = _after(store.history, last)
            if not new and not ends():
                store.changed.wait(timeout=max(until - time.monotonic(), 0))
        for change in new:
            last = change.version
            if change.key.resource == asked.kind.resource and namespace in (None, change.key.namespace):
                told = _told(change, matches)
                if told is not None:
                    yield told
        if ends() or time.monotonic() >= until:
            return


def _after(history: list[Change], version: int) -> list[Change]:
    return history[bisect.bisect_right(history, version, key=lambda one: one.version) :]


def _told(change: Change, matches: Callable[[Json], bool]) -> Json | None:
    """What a change is to somebody who sees only what a selector lets through."""
    was = change.before is not None and matches(change.before)
    is_now = change.type != "DELETED" and matches(change.after)
    if not was and not is_now:
        return None
    kind = "DELETED" if not is_now else "MODIFIED" if was else "ADDED"
    return {"type": kind, "object": change.after}


def _bookmark(asked: Asked, version: int) -> Json:
    annotations = {"k8s.io/initial-events-end": "true"}
    metadata = {"resourceVersion": str(version), "annotations": annotations}
    empty = {"kind": asked.kind.kind, "apiVersion": asked.kind.api_version, "metadata": metadata}
    return {"type": "BOOKMARK", "object": empty}
