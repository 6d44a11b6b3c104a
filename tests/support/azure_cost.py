"""A double of Azure Cost Management over real HTTP: the bill of one resource group, for the real SDK on loopback.

Belongs here: what `query` answers, with its pages, columns and silent traps, and how often it may be asked; each as
publicly reported of Azure. Doesn't belong here: requests, sign-in and faults to order (azure_arm.py).

`violations` remembers every call that came too early, whatever was answered to it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from pydantic import PrivateAttr

from resources import azure_session
from resources.billing_azure import AzureBilling
from resources.call_limit import CallLimit, Limit
from tests.support.azure_agent_pools import SUBSCRIPTION, Json, RefusedError
from tests.support.azure_arm import AzureArm, Seen
from tests.support.azure_pools import FixedToken, over_http

NODE_GROUP = "MC_labs_labs-aks_eastus"
_QUERY = re.compile(
    r"^/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/Microsoft\.CostManagement/query$",
    re.I,
)
MAX_GROUPINGS, MAX_DAYS = 2, 31


def machines(pool: str, number: int = 12345678) -> str:
    """The resource of a pool's machines, as AKS names it."""
    return (
        f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{NODE_GROUP.lower()}/providers/microsoft.compute/"
        f"virtualmachinescalesets/aks-{pool}-{number}-vmss"
    )


class Charge(NamedTuple):
    day: date
    resource: str
    tag: str | None


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, at: datetime) -> None:
        self._s = at.timestamp()
        self.slept = list[float]()

    def __call__(self) -> float:
        return self._s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._s += seconds

    def pass_time(self, length: timedelta) -> None:
        self._s += length.total_seconds()

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self._s, UTC)


@dataclass
class AzureCost(AzureArm):
    """The server; a context manager. Set what a test needs before or while it runs."""

    now: Callable[[], float] = time.time
    """Seconds since 1970: by this clock calls are counted, and days are late."""
    charges: dict[Charge, Decimal] = field(default_factory=dict)
    currency: str = "USD"
    usd_per_unit: Decimal | None = Decimal(1)
    """None: the offer has no columns in USD."""
    offers: Literal["Cost", "PreTaxCost"] = "Cost"
    days_as: Literal["number", "iso"] = "number"
    next_link_as: Literal["null", "empty", "absent"] = "null"
    columns_reversed: bool = False
    empty_as: Literal["no rows", "204"] = "no rows"
    rows_per_page: int = 1000
    late: timedelta = timedelta(0)
    """How long after a day's end its charges appear."""
    grouped_gives_last_day_only: bool = False
    endless: bool = False
    limits: tuple[Limit, ...] = (Limit(4, 60, of_one=True),)
    storm: list[Mapping[str, str]] = field(default_factory=list)
    """Headers of the next answers, which are refusals for too many calls."""
    calls: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    _wait_until: float = 0.0

    def charge(self, day: date, resource: str, cost: str | Decimal, *, tag: str | None = None) -> None:
        self.charges[Charge(day, resource, tag)] = Decimal(cost)

    def _answer_to(self, seen: Seen, query: Mapping[str, str]) -> tuple[int, Json, Mapping[str, str]]:
        match = _QUERY.match(seen.path)
        if match is None:
            return super()._answer_to(seen, query)
        if seen.method != "POST":
            raise RefusedError(405, "MethodNotAllowed", f"The requested resource does not support {seen.method}.")
        self._throttle(seen)
        self._authorize_cost(match["group"])
        return self._answer(seen, query)

    def _authorize_cost(self, group: str) -> None:
        if "Microsoft.CostManagement/query/action" in self.denied:
            raise RefusedError(403, "RBACAccessDenied", "The client does not have authorization to perform action.")
        if group.lower() != NODE_GROUP.lower():
            raise RefusedError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")

    def _throttle(self, seen: Seen) -> None:
        now = self.now()
        self.calls.append(now)
        if "Clienttype" not in seen.headers:
            raise _too_many({"x-ms-ratelimit-microsoft.costmanagement-clienttype-retry-after": "60"})
        if now < self._wait_until:
            self.violations.append(f"a call {self._wait_until - now:.3f} s before Azure allowed one")
        for limit in self.limits:
            recent = [at for at in self.calls if at > now - limit.within_s]
            if len(recent) > limit.calls:
                self.violations.append(f"{len(recent)} calls within {limit.within_s:g} s; {limit.calls} are allowed")
                raise _too_many({"x-ms-ratelimit-microsoft.costmanagement-entity-retry-after": f"{limit.within_s:g}"})
        if self.storm:
            headers = self.storm.pop(0)
            self._wait_until = now + max((float(value) for value in headers.values()), default=0.0)
            raise _too_many(headers)

    def _answer(self, seen: Seen, query: Mapping[str, str]) -> tuple[int, Json, Mapping[str, str]]:
        body = seen.body or {}
        dataset = body.get("dataset") or {}
        grouping = dataset.get("grouping") or []
        if len(grouping) > MAX_GROUPINGS:
            raise _bad("Invalid dataset grouping: at most 2 are allowed")
        costs = [one["name"] for one in (dataset.get("aggregation") or {}).values()]
        allowed = [self.offers] + ([f"{self.offers}USD"] if self.usd_per_unit is not None else [])
        for name in costs:
            if name not in allowed:
                raise _bad(f"Invalid dataset aggregation: '{name}'; valid values: {','.join(map(repr, allowed))}")
        first, last = self._period(body["timePeriod"])
        if grouping and self.grouped_gives_last_day_only:
            first = last
        rows = self._rows(first, last, costs, [one["name"] for one in grouping])
        names = [*costs, *self._group_columns(grouping), "UsageDate", "Currency"]
        columns = [{"name": name, "type": "Number" if name in (*costs, "UsageDate") else "String"} for name in names]
        if self.columns_reversed:
            columns, rows = columns[::-1], [row[::-1] for row in rows]
        start = int(query.get("$skiptoken", "0").removeprefix("AQ{}=="))
        if not rows and self.empty_as == "204":
            return 204, {}, {}
        properties: Json = {"columns": columns, "rows": rows[start : start + self.rows_per_page]}
        more = self.endless or start + self.rows_per_page < len(rows)
        if more or self.next_link_as != "absent":
            token = f"AQ%7B%7D%3D%3D{start + self.rows_per_page}"
            link = f"{self.url}{seen.path}?api-version=2025-03-01&$skiptoken={token}"
            properties["nextLink"] = link if more else ("" if self.next_link_as == "empty" else None)
        return 200, {"type": "Microsoft.CostManagement/query", "properties": properties}, {}

    def _period(self, asked: Mapping[str, str]) -> tuple[date, date]:
        """The days that are answered for, which aren't always those that were asked for."""
        first, last = (datetime.fromisoformat(asked[name]).date() for name in ("from", "to"))
        first, last = min(first, last), max(first, last)
        today = datetime.fromtimestamp(self.now(), UTC).date()
        if first > today:
            first, last = first.replace(year=first.year - 1), last.replace(year=last.year - 1)
        last = min(last, today)
        return max(first, last - timedelta(days=MAX_DAYS - 1)), last

    def _rows(self, first: date, last: date, costs: list[str], groups: list[str]) -> list[list[Any]]:
        now = datetime.fromtimestamp(self.now(), UTC)
        sums = dict[tuple[Any, ...], Decimal]()
        for (day, resource, tag), cost in self.charges.items():
            ended = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            if first <= day <= last and ended + self.late <= now:
                by = (resource if "ResourceId" in groups else None, tag if "lab" in groups else None, day)
                sums[by] = sums.get(by, Decimal()) + cost
        rows = []
        for (resource, tag, day), cost in sorted(sums.items(), key=lambda one: str(one[0])):
            amounts = [cost * (self.usd_per_unit or 1) if name.endswith("USD") else cost for name in costs]
            by = [resource] if "ResourceId" in groups else []
            by += ["lab" if tag else "", tag or ""] if "lab" in groups else []
            shown = int(f"{day:%Y%m%d}") if self.days_as == "number" else f"{day}T00:00:00"
            rows.append([*map(float, amounts), *by, shown, self.currency])
        return rows

    def _group_columns(self, grouping: list[Json]) -> list[str]:
        return [
            name for one in grouping for name in (["TagKey", "TagValue"] if one["type"] == "TagKey" else [one["name"]])
        ]


def _too_many(headers: Mapping[str, str]) -> RefusedError:
    return RefusedError(429, "429", "Too many requests. Please retry.", headers=headers)


def _bad(message: str) -> RefusedError:
    return RefusedError(400, "BadRequest", f"Invalid query definition: {message}.")


def page(*rows: list[Any], columns: tuple[str, ...] = (), next_link: str | None = None) -> str:
    """An answer to order."""
    names = columns or ("Cost", "ResourceId", "TagKey", "TagValue", "UsageDate", "Currency")
    properties = {"columns": [{"name": name} for name in names], "rows": list(rows), "nextLink": next_link}
    return json.dumps({"properties": properties})


class BillingOverLoopback(AzureBilling):
    """The project's own billing with a token in place of a sign-in, which only Azure could give."""

    token: str
    _limit: CallLimit | None = PrivateAttr(default=None)

    @classmethod
    def to(
        cls, azure: AzureCost, data_dir: object, limit: CallLimit | None = None, **settings: Any
    ) -> BillingOverLoopback:
        asked = {
            "subscription_id": SUBSCRIPTION,
            "node_resource_group": NODE_GROUP,
            "base_url": settings.get("base_url") or azure.url,
            "token": azure.token,
            "retry_s": 0.01,
            "data_dir": str(data_dir),
        }
        billing = cls(**{**asked, **settings})
        billing._limit = limit
        return billing

    @property
    def call_limit(self) -> CallLimit:
        return self._limit or super().call_limit

    def connect(self) -> Any:
        return azure_session.cost_management(
            base_url=self.base_url, credential=FixedToken(self.token), per_call_policies=[over_http()]
        )
