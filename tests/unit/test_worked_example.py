"""docs/cost.md: every number of its tables, computed again by the functions that attribute and bill."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from lab_pipelines.bill import Amount, BillLine, LineKey
from lab_pipelines.catalog.prices import load_prices
from lab_pipelines.cost import CostPart, RequestInterval, StageWindow, split_session
from lab_pipelines.deployment import REPO_ROOT
from lab_pipelines.lanes import ClosedSession
from lab_pipelines.reconcile import EstimatedSession, NodeSpan, reconcile
from lab_pipelines.rows.costs import cost_rows
from lab_pipelines.sharing import GIB, Amounts, Tenant, divide, resource_prices
from tests.support.azure_cost import machines
from tests.support.node_costs import node_cost, node_hours
from tests.support.rows.common import SKU, shared
from tests.support.rows.money import unit_price
from tests.support.rows.sessions import session_row

PAGE = (REPO_ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
DAY = date(2026, 3, 2)
HOUR_US = 3_600_000_000
Table = list[dict[str, str]]


def table(*columns: str) -> Table:
    """The one table of the page whose first columns are these."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", PAGE, flags=re.MULTILINE):
        head, _, *lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        if tuple(head[: len(columns)]) == columns:
            found.append((head, lines))
    [(head, lines)] = found
    assert lines
    return [dict(zip(head, line, strict=True)) for line in lines]


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"{DAY}T{clock}").replace(tzinfo=UTC)


def said(pattern: str) -> list[str]:
    """What the page's text says at the groups of `pattern`, in which a space may be a line's end."""
    [found] = re.findall(pattern.replace(" ", r"\s+"), PAGE)
    return [found] if isinstance(found, str) else list(found)


@pytest.fixture(scope="module")
def session() -> ClosedSession:
    requested, warm, released = said(
        r"asks for it at (\S+); at (\S+) the first token has come; at (\S+) it gives it back"
    )
    cold_start_s = (at(warm) - at(requested)).total_seconds()
    return ClosedSession.from_row(
        session_row(
            requested_at=at(requested),
            ready_at=at(warm),
            released_at=at(released),
            cold_start_s=cold_start_s,
            first_token_s=0.0,
            time_scale=1.0,
            nodes=1,
        )
    )


@pytest.fixture(scope="module")
def price() -> Decimal:
    sku, region, usd = said(r"one `(\w+)` in (\w+), which costs (\S+) USD an hour")
    assert load_prices().unit_price(sku, region).usd == Decimal(usd)
    return Decimal(usd)


@pytest.fixture(scope="module")
def parts(session: ClosedSession, price: Decimal) -> list[CostPart]:
    stages = [StageWindow("load", int(row["stage"]), at(row["from"]), at(row["to"])) for row in table("stage", "from")]
    requests = [
        RequestInterval(at(row["sent"]), at(row["finished"]), row["outcome"]) for row in table("request", "sent")
    ]
    return split_session(session, stages, requests, usd_per_node_hour=price)


def test_the_session(session: ClosedSession, price: Decimal) -> None:
    seconds, hours, usd = said(r"That is (\d+) s: (\S+) node-hours, (\S+) USD")
    assert session.cold_start_s + session.warm_wall_us / 10**6 == float(seconds)
    assert (node_hours(session), node_cost(session, price)) == (Decimal(hours), Decimal(usd))


def test_its_parts(parts: list[CostPart], session: ClosedSession, price: Decimal) -> None:
    page = table("part", "stage", "seconds")
    computed = {(part.part, "" if part.stage is None else str(part.stage)): part for part in parts}
    assert computed.keys() == {(row["part"], row["stage"]) for row in page}
    for row in page:
        part = computed[row["part"], row["stage"]]
        assert (part.node_hours, part.usd) == (Decimal(row["node-hours"]), Decimal(row["USD"])), row
        assert round(part.node_hours * 3600, 3) == Decimal(row["seconds"]), row
    assert sum(Decimal(row["USD"]) for row in page) == node_cost(session, price)


def test_its_tokens(parts: list[CostPart]) -> None:
    requests, stages = table("request", "sent"), table("stage", "from")
    usd = {str(n): sum((part.usd or Decimal() for part in parts if part.stage == n), Decimal()) for n in (0, 1)}
    usd["whole session"] = sum((part.usd or Decimal() for part in parts), Decimal())
    tokens = {
        stage["stage"]: sum(
            int(row["input tokens"]) + int(row["output tokens"])
            for row in requests
            if row["outcome"] == "ok" and stage["from"] <= row["sent"] < stage["to"]
        )
        for stage in stages
    }
    tokens["whole session"] = sum(tokens.values())
    for row in table("stage", "USD", "tokens"):
        assert Decimal(row["USD"]) == usd[row["stage"]]
        assert int(row["tokens"]) == tokens[row["stage"]]
        assert Decimal(row["USD per 1K tokens"]) == round(usd[row["stage"]] * 1000 / tokens[row["stage"]], 9)


def test_the_shared_node() -> None:
    sku, vcpus, gib, usd = said(r"A `(\w+)` \((\d+) vCPU, (\d+) GiB, (\S+) USD an hour\)")
    machine, node_price = load_prices().sku(sku), load_prices().unit_price(sku, "eastus").usd
    assert (machine.vcpus, machine.memory_gib, node_price) == (int(vcpus), int(gib), Decimal(usd))
    weights = [Decimal(text) for text in said(r"weighs a vCPU with (\S+) and a GiB with (\d\.\d+)")]
    known = resource_prices()
    assert weights == [Decimal(str(one.value)) for one in (known.cpu_usd_per_h, known.memory_gib_usd_per_h)]

    spans = re.findall(r"(L\d\d) from (\d\d:\d\d)\s+to\s+(\d\d:\d\d)", PAGE)
    held = {lab: (at(f"{start}:00"), at(f"{end}:00")) for lab, start, end in spans}
    tenants = []
    for row in table("lab", "vCPU requested"):
        cpu = max(Decimal(row["vCPU requested"]), Decimal(row["vCPU used"]))
        memory = max(Decimal(row["GiB requested"]), Decimal(row["GiB used"]))
        assert (cpu, memory) == (Decimal(row["vCPU allocated"]), Decimal(row["GiB allocated"]))
        start, end = (int(moment.timestamp() * 10**6) for moment in held[row["lab"]])
        tenants.append(Tenant(row["lab"], start, end, Amounts(0, float(cpu), float(memory) * GIB)))
    allocated = [Decimal(text) for text in said(r"= (0\.08\d+), L20 .* = (0\.06\d+), together (\S+)\. ")]
    assert allocated[0] == 2 * weights[0] + 4 * weights[1]
    assert allocated[1] == weights[0] + 8 * weights[1]
    assert allocated[2] == allocated[0] + allocated[1]

    divided = divide(tenants, Amounts(0, machine.vcpus, machine.memory_gib * GIB))
    paid = dict.fromkeys(divided.shares, Fraction())
    for row in table("hour", "L18's share"):
        start = int(at(f"{row['hour'][:5]}:00").timestamp() * 10**6)
        for lab, shares in divided.shares.items():
            share = sum((one.share for one in shares if one.start_us <= start < one.end_us), Fraction())
            cost = share * Fraction(node_price)
            paid[lab] += cost
            assert Decimal(row[f"{lab}'s share"]) == round(Decimal(share.numerator) / share.denominator, 6)
            assert Decimal(row[f"{lab} pays USD"]) == round(Decimal(cost.numerator) / cost.denominator, 6)
    *of_labs, whole = said(r"The labs pay (\S+) USD and (\S+) USD, which is two hours of the node: (\S+) USD")
    assert [f"{float(cost):.6f}" for cost in paid.values()] == of_labs
    assert sum(paid.values()) == 2 * Fraction(node_price) == Fraction(whole)


def test_the_bill(parts: list[CostPart], session: ClosedSession, price: Decimal) -> None:
    [bill] = said(r"tagged with its lab, cost (\S+) USD that day")
    said_at = datetime(2026, 3, 4, 9, tzinfo=UTC)
    line = BillLine(LineKey(DAY, machines("t4"), "l06", "USD"), Amount(Decimal(bill), Decimal(bill)), said_at)
    estimate = cost_rows(parts, shared=shared(), sku=SKU, price=unit_price(price))
    span = NodeSpan("t4", 1, session.requested_at, session.released_at)
    [outcome] = reconcile(
        [line],
        [EstimatedSession("s", "L06", [span], estimate)],
        asked={DAY: said_at},
        now=said_at + timedelta(hours=1),
    ).outcomes
    computed = {(row["x_part"], row["x_stage"]): row for row in outcome.rows}
    page = table("part", "stage", "estimated USD")
    assert len(page) == len(computed)
    for row in page:
        billed = computed[row["part"], int(row["stage"]) if row["stage"] else None]
        assert billed["x_estimated_usd"] == Decimal(row["estimated USD"])
        assert billed["BilledCost"] == Decimal(row["billed USD"]), row
        assert billed["x_delta_usd"] == Decimal(row["delta USD"]), row
    [delta] = said(r"The delta of the session is (\S+) USD")
    assert sum(row["x_delta_usd"] for row in outcome.rows) == Decimal(delta)
