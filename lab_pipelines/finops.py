"""What a token and a request cost. Pure: rows in, rows out.

Belongs here: cost per unit of work, all told, of the useful part, and of input and output apart.
Doesn't belong here: the split of node time (cost.py) and of the serving time (finops_split.py), what is useful
(catalog/slo.py), intervals over trials (the view `reference_sheet`), or reading and writing rows (session_sheets.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from lab_pipelines.catalog.slo import Slo
from lab_pipelines.cost import PARTS
from lab_pipelines.finops_split import NO_TIME, PhaseTime
from lab_pipelines.lanes import DECIMALS, CostError
from lab_pipelines.rows.common import Row
from lab_pipelines.scale_to_zero import break_even_idle_s

_UNIT = Decimal(1).scaleb(-DECIMALS)


@dataclass(frozen=True)
class UsefulWork:
    """Of a stage's successful requests, those that kept the lab's objective."""

    requests: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class StageWork:
    """What one stage got done: successful requests, and tokens of the stage's window."""

    step: str
    stage: int
    users: int | None
    """None: the stage has a rate."""
    requests: int
    input_tokens: int
    output_tokens: int
    useful: UsefulWork | None = None
    """None: the lab has no objective."""
    phases: PhaseTime = NO_TIME
    profile: str | None = None
    offered_per_s: float | None = None


@dataclass(frozen=True)
class Configuration:
    """What a session ran on, and which objective was held against its requests."""

    sku: str | None
    nodes: int | None = None
    gpus_per_node: int | None = None
    """That the machine has; None where the price sheet does not know it."""
    model: str | None = None
    values_digest: str | None = None
    slo: Slo | None = None

    def columns(self) -> Row:
        """Its columns of `finops_sheet`."""
        slo = self.slo
        return {
            "sku": self.sku,
            "nodes": self.nodes,
            "gpus_per_node": self.gpus_per_node,
            "model": self.model,
            "values_digest": self.values_digest,
            "slo_ttft_s": slo.ttft_s if slo else None,
            "slo_tpot_s": slo.tpot_s if slo else None,
            "slo_e2e_s": slo.e2e_s if slo else None,
        }


def sheet_rows(
    costs: Sequence[Mapping[str, Any]],
    work: Sequence[StageWork],
    *,
    shared: Mapping[str, Any],
    configuration: Configuration,
) -> list[Row]:
    """`finops_sheet` of one session: a row per stage, and one for the whole session (step and stage None).

    `costs` are the session's `cost_records` of one state, estimated or billed. A stage's cost is the node time of its
    window, idle included; the session's has the cold start and the time between stages on top, and all stages' work. So
    the session's dollars are the sum of `costs`, exactly. Raises `CostError` when `costs` mix states, or known and
    unknown prices.
    """
    if len({row["x_state"] for row in costs}) > 1:
        raise CostError("cost_records of several states (estimated, billed) can't be added up; choose one")
    if len({dollars(row) is None for row in costs}) > 1:
        raise CostError("some cost_records of the session have a price and some have none")
    common = {**shared, **configuration.columns(), **_state(costs)}
    rows = [
        {
            **common,
            "step": one.step,
            "stage": one.stage,
            "users": one.users,
            "profile": one.profile,
            "offered_per_s": one.offered_per_s,
            **_sheet(
                [row for row in costs if (row["x_step"], row["x_stage"]) == (one.step, one.stage)], [one], configuration
            ),
            "cold_start_requests": None,
            "break_even_idle_s": None,
        }
        for one in work
    ]
    whole = dict.fromkeys(("step", "stage", "users", "profile", "offered_per_s"))
    return [*rows, {**common, **whole, **_sheet(costs, work, configuration), **_cold_start(costs, work, configuration)}]


def dollars(row: Mapping[str, Any]) -> Decimal | None:
    """What a row of `cost_records` says in dollars: column `usd` of the view `cost_current`."""
    return row["x_billed_usd"] if row["x_state"] == "billed" else row["ListCost"]


def usd_per(usd: Decimal | None, amount: float | None) -> float | None:
    """`usd` / `amount`; None where no price is known or nothing was done, since neither is free nor infinite."""
    return float(usd) / amount if usd is not None and amount else None


def split_usd(usd: Decimal | None, share: float | None) -> tuple[Decimal | None, Decimal | None]:
    """`usd` in a `share` of it and the rest, each with the nine decimals of `cost_records`; they sum to it exactly."""
    if usd is None or share is None:
        return None, None
    first = (usd * Decimal(share)).quantize(_UNIT, ROUND_HALF_EVEN)
    return first, usd - first


def _state(costs: Sequence[Mapping[str, Any]]) -> Row:
    """Whose costs they are. A bill is provisional as long as one of its rows is; several regions are none."""
    bill_states = {row["x_bill_state"] for row in costs}
    return {
        "state": costs[0]["x_state"] if costs else "estimated",
        "bill_state": "provisional" if "provisional" in bill_states else _only(bill_states),
        "region": _only({row["RegionId"] for row in costs}),
        "priority": _only({row["x_priority"] for row in costs}),
    }


def _only(values: AbstractSet[str | None]) -> str | None:
    """The one value, whatever order the rows came in."""
    return next(iter(values)) if len(values) == 1 else None


def _sheet(costs: Sequence[Mapping[str, Any]], work: Sequence[StageWork], configuration: Configuration) -> Row:
    hours = {part: _sum(r["PricingQuantity"] for r in costs if r["x_part"] == part) for part in PARTS}
    priced = bool(costs) and dollars(costs[0]) is not None
    usd = {part: _sum(dollars(r) for r in costs if r["x_part"] == part) if priced else None for part in PARTS}
    total_hours = sum(hours.values(), Decimal())
    total_usd = _sum(dollars(r) for r in costs) if priced else None
    requests = sum(w.requests for w in work)
    input_tokens, output_tokens = sum(w.input_tokens for w in work), sum(w.output_tokens for w in work)
    share = sum((w.phases for w in work), NO_TIME).prefill_share
    input_usd, output_usd = split_usd(total_usd, share)
    serve_input_usd, serve_output_usd = split_usd(usd["serve"], share)
    return {
        "requests": requests,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "node_hours": float(total_hours),
        "usd": total_usd,
        **{f"{part}_usd": usd[part] for part in PARTS},
        "usd_per_1k_output_tokens": usd_per(total_usd, output_tokens / 1000),
        "usd_per_1k_tokens": usd_per(total_usd, (input_tokens + output_tokens) / 1000),
        "usd_per_request": usd_per(total_usd, requests),
        "idle_share": float(hours["idle"] / total_hours) if total_hours else None,
        "usd_low": _at_bound(costs, "x_price_low") if priced else None,
        "usd_high": _at_bound(costs, "x_price_high") if priced else None,
        "prefill_share": share,
        "input_usd": input_usd,
        "output_usd": output_usd,
        "input_usd_per_1k_tokens": usd_per(input_usd, input_tokens / 1000),
        "output_usd_per_1k_tokens": usd_per(output_usd, output_tokens / 1000),
        "serve_input_usd_per_1k_tokens": usd_per(serve_input_usd, input_tokens / 1000),
        "serve_output_usd_per_1k_tokens": usd_per(serve_output_usd, output_tokens / 1000),
        **_useful(total_usd, work, requests),
        "gpu_hours": _times(total_hours, configuration.gpus_per_node),
        "idle_gpu_hours": _times(hours["idle"], configuration.gpus_per_node),
        "efficiency": float(hours["serve"] / total_hours) if total_hours else None,
    }


def _useful(usd: Decimal | None, work: Sequence[StageWork], requests: int) -> Row:
    useful = [w.useful for w in work if w.useful is not None]
    known = bool(useful) and len(useful) == len(work)
    count = sum(u.requests for u in useful) if known else None
    input_tokens = sum(u.input_tokens for u in useful) if known else None
    output_tokens = sum(u.output_tokens for u in useful) if known else None
    return {
        "useful_requests": count,
        "useful_input_tokens": input_tokens,
        "useful_output_tokens": output_tokens,
        "useful_share": count / requests if count is not None and requests else None,
        "usd_per_useful_request": usd_per(usd, count),
        "usd_per_1k_useful_tokens": usd_per(usd, (input_tokens + output_tokens) / 1000)
        if input_tokens is not None and output_tokens is not None
        else None,
        "usd_per_1k_useful_output_tokens": usd_per(usd, output_tokens / 1000) if output_tokens is not None else None,
    }


def _cold_start(costs: Sequence[Mapping[str, Any]], work: Sequence[StageWork], configuration: Configuration) -> Row:
    """What the cold start is worth. Node time and not dollars, since both cost the same per hour."""
    cold = _sum(row["PricingQuantity"] for row in costs if row["x_part"] == "cold_start")
    warm = _sum(row["PricingQuantity"] for row in costs if row["x_part"] != "cold_start")
    requests = sum(w.requests for w in work)
    return {
        "cold_start_requests": float(cold / warm) * requests if cold and warm and requests else None,
        "break_even_idle_s": break_even_idle_s(float(cold) * 3600, configuration.nodes)
        if cold and configuration.nodes
        else None,
    }


def _at_bound(costs: Sequence[Mapping[str, Any]], bound: str) -> Decimal | None:
    """What `costs` come to if each unit price is at its `bound`; a bill is what it is."""
    total = Decimal()
    for row in costs:
        usd = dollars(row)
        if row["x_state"] == "estimated":
            if row[bound] is None or not row["ListUnitPrice"]:
                return None
            usd = usd and usd * row[bound] / row["ListUnitPrice"]
        total += usd or 0
    return total.quantize(_UNIT, ROUND_HALF_EVEN)


def _sum(amounts: Iterable[Decimal | None]) -> Decimal:
    """Of known amounts."""
    return sum((amount for amount in amounts if amount is not None), Decimal())


def _times(hours: Decimal, gpus: int | None) -> float | None:
    return float(hours * gpus) if gpus is not None else None
