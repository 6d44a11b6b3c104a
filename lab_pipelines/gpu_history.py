"""A pool's recorded looks, from what the warehouse holds: the sensor's own rows, or the sessions of labs.

A session is a pool of its own that one lab held. How many of its requests were in flight is known to the request; how
busy its GPU was, as often as Prometheus was asked. A lab that never asked for its GPU's utilisation has one signal
only, and no policy acts on one.

Doesn't belong here: walking them (gpu_replay.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any

from lab_pipelines.catalog.prices import PriceSheet, UnknownPriceError
from lab_pipelines.gpu_decisions import signals_of
from lab_pipelines.gpu_policy import NO_SIGNAL, ColdStart, GpuPolicy, PoolState, Signal
from lab_pipelines.gpu_replay import Look, Series

LOOK_EVERY_S = 60.0
"""Stack seconds between two looks at a session, as the sensor's own tick."""

Rows = Sequence[Mapping[str, Any]]


def of_decisions(rows: Rows) -> list[Series]:
    """`gpu_decisions` rows of one target, by pool and time: each is a look, its outcome aside."""
    series = list[Series]()
    for name, group in groupby(
        sorted(rows, key=lambda row: (row["pool"], row["tick_at"])), key=lambda row: row["pool"]
    ):
        told = list(group)
        looks = [_look_of(row) for row in told if row["outcome"] in (None, "asked", "dry-run")]
        modelled = any(row["provenance"] == "modelled" for row in told)
        series.append(Series(name, "modelled" if modelled else "measured", 1.0, looks))
    return series


def _look_of(row: Mapping[str, Any]) -> Look:
    requests, utilisation = signals_of(row)
    return Look(
        at=row["tick_at"],
        pool=PoolState(
            name=row["pool"],
            vm_size=row["vm_size"],
            mode=row["mode"],
            count=row["nodes"],
            ours=row["ours"],
            autoscaled=row["autoscaled"],
            spot=row["spot"],
            state=row["state"],
            usd_per_h=row["usd_per_h"],
        ),
        requests=requests,
        utilisation=utilisation,
        labs=tuple(row["held_by"]),
        cold_start=ColdStart(row["cold_start_s"], row["cold_start_source"]),
    )


def of_sessions(
    sessions: Rows, requests: Rows, samples: Rows, *, policy: GpuPolicy, sheet: PriceSheet, region: str
) -> list[Series]:
    """Closed `stack_sessions` with a machine type, their `requests` and their `metric_samples` of GPU utilisation."""
    by_session = {row["session_id"]: ([], []) for row in sessions}
    for number, rows in enumerate((requests, samples)):
        for row in rows:
            by_session[row["session_id"]][number].append(row)
    return [
        _series_of(row, *by_session[row["session_id"]], policy=policy, sheet=sheet, region=region) for row in sessions
    ]


def _series_of(
    session: Mapping[str, Any], requests: Rows, samples: Rows, *, policy: GpuPolicy, sheet: PriceSheet, region: str
) -> Series:
    scale = session["time_scale"]
    step = timedelta(seconds=LOOK_EVERY_S / scale)
    cold_s = session["cold_start_s"]
    pool = PoolState(
        name=f"{session['lab']} {session['variant']}",
        vm_size=session["sku"],
        mode="User",
        count=session["nodes"],
        ours=True,
        autoscaled=False,
        spot=False,
        state="Succeeded",
        usd_per_h=_usd_per_h(session["sku"], session["nodes"], sheet, region),
    )
    measured = ColdStart(cold_s, "its own") if cold_s else ColdStart(policy.assumed_cold_start_s, "assumed")
    looks = [
        Look(
            at=at,
            pool=pool,
            requests=_in_flight(requests, at - step, at),
            utilisation=_most(samples, at - step, at, scale),
            labs=(session["lab"],),
            cold_start=measured,
        )
        for at in _times(session["ready_at"], session["released_at"], step)
    ]
    return Series(pool.name, session["provenance"], scale, looks)


def _times(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    at = start
    while at < end:
        yield at
        at += step
    yield end


def _in_flight(requests: Rows, since: datetime, until: datetime) -> Signal:
    """Requests that were under way at any moment since the last look."""
    count = sum(1 for row in requests if row["sent_at"] <= until and row["finished_at"] >= since)
    return Signal(value=float(count), age_s=0.0, reporting=1, expected=1)


def _most(samples: Rows, since: datetime, until: datetime, scale: float) -> Signal:
    """The most that was sampled since the last look; between two stages nobody asked."""
    found = [row for row in samples if since <= row["sampled_at"] <= until]
    if not found:
        return NO_SIGNAL
    newest = max(row["sampled_at"] for row in found)
    age_s = (until - newest).total_seconds() * scale
    return Signal(value=max(row["value"] for row in found), age_s=age_s, reporting=1, expected=1)


def _usd_per_h(sku: str, nodes: int, sheet: PriceSheet, region: str) -> Decimal | None:
    try:
        return sheet.price(sku, region).on_demand * nodes
    except UnknownPriceError:
        return None
