"""Keeps a lease alive while its holder waits for what makes no progress of its own: a node, an image, a model.

Belongs here: renewing in the background for as long as a block lasts. Doesn't belong here: what a renewal is
(kube_leases.py), or work that renews as it goes (assets/load_run.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from resources.cluster import ClusterError

EVERY_S = 60.0
"""A fraction of the lease, so that some renewals in a row may fail."""


@contextmanager
def kept(renew: Callable[[], object]) -> Iterator[None]:
    """Call `renew` every minute until the block ends. A renewal that fails is tried again; the holder finds out from
    the lease itself when it is gone."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(EVERY_S):
            try:
                renew()
            except ClusterError:
                continue

    thread = threading.Thread(target=keep, name="lease keeper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
