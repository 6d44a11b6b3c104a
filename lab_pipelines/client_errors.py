"""The load generator's own error, stage by stage, against its budget.

Belongs here: what a client can be blamed for, as numbers with bounds. Pure. Doesn't belong here: the bounds themselves
(catalog/client_budget.py), measuring (load-tests/locust/), rows (rows/load.py).

It is judged for whole stages. To leave out only the requests that came late would leave out those that a busy moment
made slow, and keep the others: a better number than the stack's own. What the server kept waiting is not the client's
error: a place among the `max_in_flight`, a connection, a request that lies unread in a frozen server's socket.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from streaming_load.ranks import nearest_rank

from lab_pipelines.catalog.client_budget import ClientBudget
from resources.load_generator import CompletionShape, LoadPlan, LoadResult, RequestRecord, Shape, StageRecord

Quantity = Literal[
    "schedule_lag_p99",
    "ttft_lag_p99",
    "receive_lag_p99",
    "event_loop_lag_p99",
    "cpu_share",
    "ttft_error_share",
    "token_mismatch",
]

NOT_STAMPED = "the server doesn't stamp what it sends"
OTHER_CLOCK = "the server's clock is another machine's, so that the way between them can't be told apart"
BURST = "a burst goes out one request after the other; what that does to TTFT is in ttft_error_share"
OVER = "client over its error budget"


@dataclass(frozen=True)
class ClientError:
    """One quantity of a stage. `within` is None where nothing was judged, and `reason` then says why."""

    quantity: Quantity
    value: float | None
    unit: Literal["s", "ratio"]
    allowed: float
    n: int
    """Requests, or samples of a process, that the value comes from."""
    within: bool | None
    reason: str | None


def client_errors(
    plan: LoadPlan, result: LoadResult, budget: ClientBudget, *, judge_share: bool
) -> dict[int, list[ClientError]]:
    """Every quantity of every stage, by stage. `judge_share`: whether `ttft_error_share` is held to its bound."""
    requests: dict[int, list[RequestRecord]] = defaultdict(list)
    for request in result.requests:
        requests[request.stage].append(request)
    return {
        stage.stage: _of_stage(plan, stage, requests[stage.stage], budget, result.no_client, judge_share=judge_share)
        for stage in result.stages
    }


def faults(errors: Mapping[int, Sequence[ClientError]]) -> dict[int, list[str]]:
    """Why no request of a stage is valid, by stage, where that is so. Wrong lengths are single requests' faults."""
    found = {
        stage: [f"{OVER}: {one.reason}" for one in ones if one.within is False and one.quantity != "token_mismatch"]
        for stage, ones in errors.items()
    }
    return {stage: reasons for stage, reasons in found.items() if reasons}


def token_fault(shape: Shape, record: RequestRecord) -> str | None:
    """How a successful request's lengths, as the server's usage tells them, differ from those that were asked for.

    None also where the usage doesn't tell: that no length is known is a gap, and not another length.
    """
    expected = expected_tokens(shape, record)
    if expected is None or record.outcome != "ok":
        return None
    wrong = [
        f"{seen} of {asked} {name} tokens"
        for name, seen, asked in zip(("input", "output"), _seen(record), expected, strict=True)
        if seen not in (None, asked)
    ]
    return f"another length than asked for: {', '.join(wrong)}" if wrong else None


def expected_tokens(shape: Shape, record: RequestRecord) -> tuple[int, int] | None:
    """Input and output tokens that the usage of a success must tell; None where it is to be refused, or is a GET."""
    if record.asked_tokens is not None:
        return record.asked_tokens
    if not isinstance(shape, CompletionShape) or shape.expect != 200:
        return None
    kept = shape.input_tokens if shape.truncate_to is None else min(shape.input_tokens, shape.truncate_to)
    return kept, shape.output_tokens


def _of_stage(
    plan: LoadPlan,
    stage: StageRecord,
    requests: Sequence[RequestRecord],
    budget: ClientBudget,
    no_client: str | None,
    *,
    judge_share: bool,
) -> list[ClientError]:
    stamped = any(request.server_ttft_s is not None for request in requests)
    unstamped = OTHER_CLOCK if stamped else NOT_STAMPED
    late = [request.client_lag_s for request in requests if request.client_lag_s is not None]
    first = [request.first_receive_lag_s for request in requests if request.first_receive_lag_s is not None]
    received, received_n = _receive_lag(requests)
    share, share_n = _ttft_error_share(requests)
    lengths = [
        token_fault(plan.shapes[request.shape], request) is not None
        for request in requests
        if request.outcome == "ok" and expected_tokens(plan.shapes[request.shape], request) is not None
        if None not in _seen(request)
    ]
    errors = [
        _judged(
            "schedule_lag_p99",
            _p99(late),
            budget.schedule_lag_p99_wall_s,
            len(late),
            "no request got its turn",
            unjudged=BURST if plan.profile == "burst" else None,
        ),
        _judged("ttft_lag_p99", _p99(first), budget.ttft_lag_p99_wall_s, len(first), unstamped),
        _judged("receive_lag_p99", received, budget.receive_lag_p99_wall_s, received_n, unstamped),
        _judged(
            "event_loop_lag_p99",
            stage.event_loop_lag_p99_s,
            budget.event_loop_lag_p99_wall_s,
            stage.event_loop_probes,
            "the event loop was not sampled",
        ),
        _judged(
            "cpu_share",
            stage.busiest_cpu_share,
            budget.cpu_share,
            stage.cpu_samples,
            "the CPU time was not sampled",
            unit="ratio",
        ),
        _judged(
            "ttft_error_share",
            share,
            budget.ttft_error_share,
            share_n,
            NOT_STAMPED if not stamped else "no request was whole",
            unit="ratio",
            unjudged=None if judge_share else "the pace is not for baselines",
        ),
        _judged(
            "token_mismatch",
            sum(lengths) / len(lengths) if lengths else None,
            0.0,
            len(lengths),
            "no usage told how many tokens there were",
            unit="ratio",
        ),
    ]
    if no_client is None:
        return errors
    return [ClientError(one.quantity, None, one.unit, one.allowed, 0, within=None, reason=no_client) for one in errors]


def _judged(
    quantity: Quantity,
    value: float | None,
    allowed: float,
    n: int,
    missing: str,
    *,
    unit: Literal["s", "ratio"] = "s",
    unjudged: str | None = None,
) -> ClientError:
    """`missing`: why there is no value, if there is none; `unjudged`: why one is not judged."""
    if value is None:
        return ClientError(quantity, None, unit, allowed, n, within=None, reason=missing)
    if unjudged is not None:
        return ClientError(quantity, value, unit, allowed, n, within=None, reason=unjudged)
    within = value <= allowed
    reason = None if within else f"{_NAMES[quantity]} {shown(value, unit)} > {shown(allowed, unit)}"
    return ClientError(quantity, value, unit, allowed, n, within=within, reason=reason)


_NAMES: dict[Quantity, str] = {
    "schedule_lag_p99": "schedule lag p99",
    "ttft_lag_p99": "TTFT lag p99",
    "receive_lag_p99": "receive lag p99",
    "event_loop_lag_p99": "event-loop lag p99",
    "cpu_share": "CPU share of one process",
    "ttft_error_share": "error of the median TTFT",
    "token_mismatch": "requests of another length",
}


def shown(value: float, unit: str) -> str:
    """For a person: milliseconds, or percent."""
    return f"{1000 * value:.3g} ms" if unit == "s" else f"{100 * value:.3g} %"


def worst_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for a person from rows of `client_errors` that have values: each quantity where it was worst.

    E.g. `schedule lag p99 0.4 ms of 50 ms, event-loop lag p99 3.1 ms of 50 ms, CPU share of one process 12 % of 90 %`.
    """
    worst: dict[Quantity, Mapping[str, Any]] = {}
    for row in rows:
        if row["value"] is not None and row["value"] > worst.get(row["quantity"], {"value": -math.inf})["value"]:
            worst[row["quantity"]] = row
    return ", ".join(
        f"{name} {shown(worst[quantity]['value'], worst[quantity]['unit'])} of "
        f"{shown(worst[quantity]['allowed'], worst[quantity]['unit'])}"
        for quantity, name in _NAMES.items()
        if quantity in worst
    )


def told(rows: Sequence[Mapping[str, Any]]) -> str:
    """The client's own error in one sentence, from a run's rows of report/sql/client_errors.sql.

    E.g. `The client's own error: event-loop lag p99 3 ms of 50 ms; within budget.`
    """
    stages = max((row["stages"] for row in rows), default=0)
    judged = [row for row in rows if row["judged"]]
    if not judged:
        reasons = sorted({row["reason"] for row in rows if row["reason"]})
        return f"The client's own error: not known ({'; '.join(reasons) or 'nobody kept count'})."
    over = [row for row in judged if row["over"]]
    if not over:
        return f"The client's own error: {worst_of(judged)}; within budget."
    listed = "; ".join(f"{_NAMES[row['quantity']]} in {row['over']} of {stages} stages" for row in over)
    return f"The client's own error: {worst_of(judged)}; over budget: {listed}."


def cell(row: Mapping[str, Any], column: str) -> str:
    """A column of a row of `client_errors` for a person; nothing where nothing is known."""
    value = row[column]
    if value is None:
        return ""
    if column == "within":
        return "yes" if value else "no"
    return shown(value, row["unit"]) if column in ("value", "allowed") else str(value)


def _p99(values: Sequence[float]) -> float | None:
    """None of none."""
    return nearest_rank(values, 0.99) if values else None


def _receive_lag(requests: Iterable[RequestRecord]) -> tuple[float | None, int]:
    """The median of the requests' own p99, of the process that was latest; how many requests there are.

    The 99th percentile of the requests' own would be that of the worst moments of the few that had most of them.
    """
    lags: dict[str, list[float]] = defaultdict(list)
    for request in requests:
        if request.receive_lag_p99_s is not None:
            lags[request.worker].append(request.receive_lag_p99_s)
    medians = [median(values) for values in lags.values()]
    return max(medians, default=None), sum(map(len, lags.values()))


def _ttft_error_share(requests: Iterable[RequestRecord]) -> tuple[float | None, int]:
    """What the client saw beyond the server's own TTFT, its own lateness included, over what it saw: by medians.

    Against the server's stamps the way there and back counts, too; so does the time that a request lies unread because
    the client took the server's core. A server that is frozen for a while moves no median.
    """
    sample = [
        (request.client_lag_s + request.event_offsets_s[0] - request.sent_offset_s - request.server_ttft_s, request)
        for request in requests
        if request.client_lag_s is not None and request.server_ttft_s is not None
        if request.event_offsets_s and request.outcome == "ok" and request.in_stage and request.counted
    ]
    if not sample:
        return None, 0
    ttft_s = median(request.event_offsets_s[0] for _, request in sample)
    return (median(error for error, _ in sample) / ttft_s if ttft_s > 0 else None), len(sample)


def _seen(record: RequestRecord) -> tuple[int | None, int | None]:
    return record.input_tokens, record.output_tokens
