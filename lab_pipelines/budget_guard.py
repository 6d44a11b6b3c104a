"""What a budget's spend leads to: one pure decision per budget, and which leases an overspent one ends.

Belongs here: the states, their order and their words. Doesn't belong here: budgets (budgets.py), reading what was spent
(resources/spending.py), or acting (sensors/budget_guard.py).

The basis is what was *estimated*, since a bill comes a day late; where a settled bill says more, it is the bill. A
warning and a refusal go by what was spent and what running leases are committed to; a cut goes by what was spent alone.
Money that can't be told is never zero: it warns. It never cuts, since nobody knows that it is too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from lab_pipelines.budgets import MONTH, Budgets, Period

State = Literal["ok", "warn", "refuse", "cut"]
"""What a budget's spend asks for. `refuse` and `cut` warn too, and `cut` refuses too."""
STATES: tuple[State, ...] = ("ok", "warn", "refuse", "cut")
Kind = Literal["closed", "open", "pools", "projected"]


@dataclass(frozen=True)
class Amount:
    """Money of one budget's period. `lab` is None for what no lab can be named for."""

    lab: str | None
    kind: Kind
    """closed: sessions that were released; open: sessions that are up; pools: nodes that no session accounts for;
    projected: what leases that are good now will cost until they end."""
    usd: Decimal | None
    """None: it can't be told, and `what` says why."""
    what: str
    billed_more_usd: Decimal = Decimal()
    """By how much a settled bill exceeds the estimate; part of `usd`."""


@dataclass(frozen=True)
class Spend:
    """The amounts of one budget, by kind, in USD; what can't be told is in `unknown` and in no sum."""

    closed_usd: Decimal = Decimal()
    open_usd: Decimal = Decimal()
    pools_usd: Decimal = Decimal()
    projected_usd: Decimal = Decimal()
    billed_more_usd: Decimal = Decimal()
    unknown: tuple[str, ...] = ()

    @property
    def spent_usd(self) -> Decimal:
        """What has been spent so far."""
        return self.closed_usd + self.open_usd + self.pools_usd

    @property
    def committed_usd(self) -> Decimal:
        """The same, and what the running leases will cost until they end."""
        return self.spent_usd + self.projected_usd


def spend_of(scope: str, amounts: Sequence[Amount]) -> Spend:
    """The amounts that count for one budget, added up. A lab's budget has its own alone."""
    counted = [one for one in amounts if scope in (MONTH, one.lab)]

    def total(kind: Kind) -> Decimal:
        return sum((one.usd or Decimal() for one in counted if one.kind == kind), Decimal())

    return Spend(
        closed_usd=total("closed"),
        open_usd=total("open"),
        pools_usd=total("pools"),
        projected_usd=total("projected"),
        billed_more_usd=sum((one.billed_more_usd for one in counted), Decimal()),
        unknown=tuple(sorted({one.what for one in counted if one.usd is None})),
    )


@dataclass(frozen=True)
class Verdict:
    """What one budget's spend asks for."""

    scope: str
    period: Period
    budget_usd: Decimal
    spend: Spend
    before: State
    """At the look before; `ok` in a new period and after the budget was changed."""
    state: State
    reason: str

    @property
    def refuses(self) -> bool:
        return STATES.index(self.state) >= STATES.index("refuse")


def judge(scope: str, period: Period, budget_usd: Decimal, spend: Spend, *, budgets: Budgets, before: State) -> Verdict:
    """The state that `spend` leads to: the highest that it reaches, or has reached before and not left yet.

    More money never leads to a lower state. Money that can't be told leads to `warn`, or where the budgets say so to
    `refuse`, and never further.
    """
    state: State = "ok"
    asked: list[tuple[State, float, Decimal]] = [
        ("warn", budgets.warn_percent, spend.committed_usd),
        ("refuse", budgets.refuse_percent, spend.committed_usd),
        ("cut", budgets.cut_percent, spend.spent_usd),
    ]
    for candidate, percent, amount in asked:
        held = STATES.index(before) >= STATES.index(candidate)
        needed = percent - budgets.margin_percent if held else percent
        if amount * 100 >= budget_usd * Decimal(str(needed)):
            state = candidate
    if spend.unknown:
        least: State = "refuse" if budgets.refuse_unknown else "warn"
        if STATES.index(state) < STATES.index(least):
            state = least
    return Verdict(scope, period, budget_usd, spend, before, state, _reason(budget_usd, spend, before, state))


def _reason(budget_usd: Decimal, spend: Spend, before: State, state: State) -> str:
    percent = spend.spent_usd * 100 / budget_usd
    said = f"{spend.spent_usd:.2f} of {budget_usd:.2f} USD spent ({percent:.0f} %)"
    if spend.projected_usd:
        said += f", {spend.projected_usd:.2f} more committed to"
    if spend.billed_more_usd:
        said += f", with {spend.billed_more_usd:.2f} that bills say beyond the estimates"
    if spend.unknown:
        said += f"; not told: {'; '.join(spend.unknown)}"
    return said if state == before else f"{before} → {state}: {said}"


@dataclass(frozen=True)
class Holding:
    """Something that costs money now and could be ended: a run's lease, or a pool that no lease holds."""

    name: str
    """The lab, or the pool."""
    run_id: str | None
    """None: a pool that no lab's lease holds."""
    gpu: bool
    usd_per_h: Decimal | None
    """None: no price is known."""
    until: datetime | None = None
    """When its right ends by itself; None: a pool that nobody has a right to."""


@dataclass(frozen=True)
class Cut:
    """A holding that is to end, and the budget that it ends for."""

    holding: Holding
    verdict: Verdict = field(repr=False)


def cuts(verdicts: Sequence[Verdict], holdings: Sequence[Holding]) -> list[Cut]:
    """What the overspent budgets end, the dearest first.

    A lab's budget ends the lab's leases. The month's ends whatever has a GPU: leases, and pools that no lease holds.
    """
    over = {verdict.scope: verdict for verdict in verdicts if verdict.state == "cut"}
    ended = list[Cut]()
    for holding in sorted(holdings, key=lambda one: (-(one.usd_per_h or Decimal()), one.name)):
        verdict = over.get(holding.name) if holding.run_id else None
        verdict = verdict or (over.get(MONTH) if holding.gpu else None)
        if verdict is not None:
            ended.append(Cut(holding, verdict))
    return ended
