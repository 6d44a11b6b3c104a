"""Asks Azure Cost Management what each resource of one resource group cost, day by day.

Belongs here: the question, its pages, and how often Azure may be asked. Doesn't belong here: reading a page
(cost_answer.py), sign-in and errors (azure_session.py, azure_errors.py), counting calls (call_limit.py), or what
becomes of the answer (bill_ledger.py).

The SDK sends a question and returns its first page; the others are at `nextLink`, which takes the same question by
POST. Azure says when it may be asked again in headers of its own, which the SDK doesn't know, so nothing is left to
its retries. What Azure would silently turn into another question is refused before it is sent (lab_pipelines/bill.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lab_pipelines.bill import LONGEST_WINDOW_DAYS, Amount, Answer, BillError, LineKey, Window, check_days
from lab_pipelines.words import counted
from resources import azure_session
from resources.azure_errors import Said, explained
from resources.azure_session import RETRY_S, TRIES, AzureError, RefusedError, ThrottledError, UnansweredError
from resources.call_limit import CallLimit, Limit, Turn, TurnError
from resources.cluster import Progress
from resources.cost_answer import TAG, AnswerError, Line, read_page
from resources.kube_api import Deadline

if TYPE_CHECKING:
    from azure.core.rest import HttpResponse
    from azure.mgmt.costmanagement import CostManagementClient

AZURE_LIMITS = (Limit(4, 60, of_one=True), Limit(20, 60, of_one=False), Limit(12, 10, of_one=False))
"""Per scope, per user, and per tenant (microsoft/GitHub-Copilot-for-Azure,
plugin/skills/azure-cost/cost-query/guardrails.md, read 2026-11). Pages are calls, too, and so is what Azure refuses."""
RETRY_HEADERS = tuple(
    f"x-ms-ratelimit-microsoft.costmanagement-{what}-retry-after"
    for what in ("qpu", "entity", "tenant", "client", "clienttype")
)
CLIENT_TYPE = "lab-pipelines"
"""Callers that send no `ClientType` share one allowance with everybody in the tenant who sends none."""
UNSAID_WAIT_S = 60.0
"""What a refusal for too many calls costs that says no time."""
READ_S = 60.0
"""For an answer to begin: months of a large group take Azure tens of seconds."""
CALL_S = 90.0
"""After so long a call is over, answered or not."""
MOST_THROTTLED = 60
"""Refusals in a row for one page; at four calls a minute a quarter of an hour of them."""
MOST_PAGES = 500
"""Of one question. A page has 1,000 rows; a month of a cluster fits on some ten."""

_COSTS = (("Cost", "CostUSD"), ("PreTaxCost", "PreTaxCostUSD"), ("PreTaxCost",), ("Cost",))
"""Which columns to ask for; an offer of Azure's that lacks one refuses it by name. Two at most."""
_QUERY_PATH = "/providers/microsoft.costmanagement/query"


class BillPausedError(AzureError):
    """Azure allows no more calls for now, and there is no time to wait. `again_at`: when it may be asked again."""

    def __init__(self, message: str, again_at: datetime) -> None:
        super().__init__(message)
        self.again_at = again_at


@dataclass
class CostQueries:
    """Questions about one resource group, e.g. `subscriptions/…/resourceGroups/MC_labs_labs-aks_eastus`."""

    client: CostManagementClient
    scope: str
    limit: CallLimit
    retry_s: float = RETRY_S
    """The shortest time before something is asked again that Azure failed to answer."""
    _costs: int = 0
    _calls: int = 0

    def ask(self, window: Window, *, until: float, progress: Progress) -> Answer:
        """What every resource cost on each day of `window`, by its tag `lab`.

        `until`: by when it must be done, on the limit's clock. Azure may answer a question by resource for the last of
        its days alone; so where days have no data, they are asked for without resources, and any that Azure knows after
        all one by one.

        Raises `BillError` for a window that is no question; `BillPausedError` when Azure allows no more calls until
        then; `AzureError` when it says no, doesn't answer, or answers what can't be read.
        """
        asked_at = datetime.fromtimestamp(self.limit.clock(), UTC)
        check_days(window.first, window.last, today=asked_at.date())
        if len(window.days) > LONGEST_WINDOW_DAYS:
            raise BillError(f"{window}: {len(window.days)} days; Azure answers for {LONGEST_WINDOW_DAYS} at most")
        self._calls = 0
        lines = dict(self._question(window, until, progress, grouped=True))
        missing = set(window.days) - {key.usage_date for key in lines}
        if missing and len(window.days) > 1:
            known = {key.usage_date for key in self._question(window, until, progress, grouped=False)}
            for day in sorted(missing & known):
                progress(f"{day}: Azure left it out of {window}; it is asked for on its own")
                found = self._question(Window(day, day), until, progress, grouped=True)
                if not found:
                    raise AzureError(
                        f"cost of {day}: Azure has a total of that day, and doesn't say of which resources"
                    )
                lines |= found
        return Answer(window, asked_at, lines, self._calls)

    def _question(self, window: Window, until: float, progress: Progress, *, grouped: bool) -> Mapping[LineKey, Amount]:
        """All pages of one question."""
        while True:
            try:
                return self._pages(window, self._body(window, grouped=grouped), until, progress, grouped=grouped)
            except RefusedError as refused:
                if self._costs + 1 < len(_COSTS) and _names_a_cost_column(refused.said):
                    self._costs += 1
                    continue
                raise AzureError(f"cost of {window}: {self._explained(refused.said)}") from None
            except AnswerError as error:
                raise AzureError(f"cost of {window}: Azure's answer can't be read: {error}") from None

    def _body(self, window: Window, *, grouped: bool) -> dict[str, Any]:
        by = [{"type": "Dimension", "name": "ResourceId"}, {"type": "TagKey", "name": TAG}]
        return {
            # What is charged. Amortized would spread a reservation over the machines that use it, and `Usage` is the
            # former name of the same as this.
            "type": "ActualCost",
            "timeframe": "Custom",
            "timePeriod": {"from": f"{window.first}T00:00:00Z", "to": f"{window.last}T23:59:59Z"},
            "dataset": {
                "granularity": "Daily",
                "aggregation": {f"total{name}": {"name": name, "function": "Sum"} for name in _COSTS[self._costs]},
                **({"grouping": by} if grouped else {}),
            },
        }

    def _pages(
        self, window: Window, body: dict[str, Any], until: float, progress: Progress, *, grouped: bool
    ) -> Mapping[LineKey, Amount]:
        lines = dict[LineKey, Amount]()
        places, links = dict[tuple[str, ...], str](), set[str]()
        link = None
        for number in range(1, MOST_PAGES + 1):
            text = self._post(link, body, f"cost of {window}", until, progress)
            if text is None:
                return lines
            page = read_page(text, number=number, window=window, grouped=grouped)
            for line in page.lines:
                if line.said in places:
                    raise AnswerError(f"{line.place} repeats {places[line.said]}: the sum would be wrong")
                places[line.said] = line.place
                lines[line.key] = _added(lines.get(line.key), line)
            link = page.next_link
            if link is None:
                return lines
            if link in links:
                raise AnswerError(f"page {number} leads back to a page that was read before")
            links.add(link)
            progress(f"{window}: {len(lines)} lines from {counted(number, 'page')}")
        raise AnswerError(f"it has no end: {MOST_PAGES} pages, and each names another")

    def _post(self, link: str | None, body: dict[str, Any], what: str, until: float, progress: Progress) -> str | None:
        """A page's text, None for an answer without content. Each try takes its turn."""
        failed = throttled = 0
        while True:
            turn, wait_s = self._turn(what, until, progress), 0.0
            try:
                response = azure_session.once(self._sending(link, body), what=what, deadline=Deadline.within(CALL_S))
                return None if response.status_code == 204 or not response.content.strip() else response.text()
            except ThrottledError as refused:
                throttled, wait_s = throttled + 1, asked_wait_s(refused)
                progress(f"{what}: Azure has too many questions to answer and asks for {wait_s:.0f} s")
                if throttled >= MOST_THROTTLED:
                    again = datetime.fromtimestamp(self.limit.clock() + wait_s, UTC)
                    raise BillPausedError(
                        f"{what}: Azure had too many questions to answer, {throttled} times in a row ({refused.said}); "
                        f"ask again after {again:%Y-%m-%d %H:%M:%S} UTC",
                        again,
                    ) from None
            except UnansweredError as error:
                failed, wait_s = failed + 1, max(error.wait_s, self.retry_s)
                if failed >= TRIES:
                    raise error.after(failed) from None
            finally:
                self.limit.end(turn, wait_s=wait_s)

    def _turn(self, what: str, until: float, progress: Progress) -> Turn:
        try:
            turn = self.limit.take(
                self.scope.lower(),
                lasts_s=CALL_S,
                until=until,
                waiting=lambda wait_s: progress(f"{what}: Azure may be asked again in {wait_s:.0f} s"),
            )
        except TurnError as late:
            raise BillPausedError(
                f"{what}: Azure allows the next question only at {late.at:%Y-%m-%d %H:%M:%S} UTC, and the time ends "
                "before; what was answered so far is kept: run it again then",
                late.at,
            ) from None
        self._calls += 1
        return turn

    def _sending(self, link: str | None, body: dict[str, Any]) -> Callable[..., HttpResponse]:
        headers = {"ClientType": CLIENT_TYPE}

        def first(**limits: Any) -> HttpResponse:
            ask = cast("Callable[..., HttpResponse]", self.client.query.usage)  # it returns what `cls` makes of it
            limits["read_timeout"] = READ_S
            return ask(self.scope, body, headers=headers, cls=lambda answer, *_: answer.http_response, **limits)

        def further(**limits: Any) -> HttpResponse:
            from azure.core.rest import HttpRequest

            request = HttpRequest("POST", _path_of(link or ""), json=body, headers=headers)
            limits["read_timeout"] = READ_S
            response = self.client.send_request(request, stream=False, **limits)
            response.raise_for_status()
            return response

        return first if link is None else further

    def _explained(self, refusal: Said) -> str:
        if refusal.code == "ResourceGroupNotFound":
            return f"{refusal}; set LABS_AKS_NODE_RESOURCE_GROUP to the group of the cluster's machines (docs/bill.md)"
        return explained(refusal)


def asked_wait_s(refused: ThrottledError) -> float:
    """The longest time for which any of Azure's headers asks to be left alone; `UNSAID_WAIT_S` where none does."""
    said = [refused.wait_s, *(_seconds(refused.headers.get(name)) for name in RETRY_HEADERS)]
    return max((wait_s for wait_s in said if math.isfinite(wait_s) and wait_s > 0), default=UNSAID_WAIT_S)


def _seconds(header: str | None) -> float:
    try:
        return float(header or 0)
    except ValueError:
        return 0.0


def _path_of(link: str) -> str:
    """The link's path and query: it is followed at the address that was asked, where the token belongs."""
    parts = urlsplit(link)
    if not parts.path.lower().endswith(_QUERY_PATH):
        raise AnswerError(f"nextLink leads to {parts.path or 'nowhere'}, which is no cost query")
    return f"{parts.path}?{parts.query}"


def _added(before: Amount | None, line: Line) -> Amount:
    """Azure has the same resource twice when services write its name in different ways."""
    if before is None:
        return line.amount
    known = before.cost_usd is not None and line.amount.cost_usd is not None
    usd = (before.cost_usd or Decimal()) + (line.amount.cost_usd or Decimal())
    return Amount(before.cost + line.amount.cost, usd if known else None)


def _names_a_cost_column(refusal: Said) -> bool:
    text = f"{refusal.message} {refusal.within}".lower()
    return refusal.status == 400 and ("aggregation" in text or "costusd" in text or "pretaxcost" in text)
