"""What Azure's refusals mean, in one line that says what to do. Pure, but for the clock that a `Retry-After` goes by.

Belongs here: reading an error of Azure Resource Manager or of the sign-in, the remedy for each kind, how long to wait.
Doesn't belong here: sending requests (azure_session.py), or what is done about a refusal (node_pools_azure.py).

The codes and messages are those that Azure gives in public reports: the same code can mean different things, so that
the message counts, too. `OperationNotAllowed` is both a running operation and a quota that is used up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from resources.redaction import redacted

Kind = Literal["busy", "changed", "quota", "sku", "capacity", "autoscaler", "other"]

LONGEST_MESSAGE = 400
"""A quota's message ends in a link of a thousand characters."""
LONGEST_OUTER_MESSAGE = 100
"""Where there is more within."""

_BUSY = re.compile(r"another .{0,60}operation|operation .{0,80}in progress|mutually exclusive operations", re.I)
_QUOTA = re.compile(r"quota", re.I)
_SKU = re.compile(r"SkuNotAvailable|NotAvailableForSubscription|VM size .{0,80}(not allowed|not available)", re.I)
_CAPACITY = re.compile(r"AllocationFailed|Overconstrained\w*AllocationRequest|sufficient capacity|SpotCapacity", re.I)
_AUTOSCALER = re.compile(r"autoscal", re.I)
_SIGN_IN_CODE = re.compile(r"AADSTS\d+")
# Refresh token expired, revoked or idle for too long; password changed; session ended by policy.
_LOGIN_OVER = {"AADSTS70043", "AADSTS700082", "AADSTS50173", "AADSTS700084", "AADSTS70008", "AADSTS50133"}
# Where a linked resource is the one that is denied, e.g. the pool's subnet, the action that is allowed comes first.
_DENIED_ACTIONS = (re.compile(r"perform action\(s\) '([^']+)'"), re.compile(r"perform action '([^']+)'"))

_REMEDIES: Mapping[Kind, str] = {
    "quota": "`az vm list-usage --location REGION --output table` shows the quota; free some of it or ask for more. "
    "Spot machines have a quota of their own",
    "sku": "this subscription can't have that size in the cluster's region or zone: make the pool of another size or "
    "elsewhere, or ask Azure's support to lift the restriction",
    "capacity": "Azure has no such machine free now: try later, in another zone or region",
    "autoscaler": "the pool's autoscaler was turned on meanwhile: try again",
}
_SPOT_CAPACITY = "Azure has no such Spot machine free now: try later, or let the lab use a pool that isn't Spot"
_CHARGES_HIDDEN = "an administrator of the enrollment hides its charges; ask for the policy to view them"
_ACCESS_REMEDIES: Mapping[str, str] = {
    "SubscriptionNotFound": "set AZURE_SUBSCRIPTION_ID to the cluster's (`az account list --output table`)",
    "InvalidSubscriptionId": "set AZURE_SUBSCRIPTION_ID to the cluster's id (`az account list --output table`)",
    "MissingSubscription": "set AZURE_SUBSCRIPTION_ID to the cluster's id (`az account list --output table`)",
    "ResourceGroupNotFound": "set LABS_AKS_RESOURCE_GROUP to the cluster's (`az aks list --output table`)",
    "InvalidAuthenticationTokenTenant": "AZURE_SUBSCRIPTION_ID belongs to another tenant than this sign-in: "
    "`az login --tenant TENANT`",
    "ExpiredAuthenticationToken": "sign in again: `az login`",
    "InvalidAuthenticationToken": "sign in again: `az login`",
    "AuthenticationFailed": "sign in again: `az login`",
    "RBACAccessDenied": "give this identity the role Cost Management Reader on the cluster's node resource group "
    "(docs/aks.md)",
    "AccountCostDisabled": _CHARGES_HIDDEN,
    "DepartmentCostDisabled": _CHARGES_HIDDEN,
    "IndirectCostDisabled": "the subscription's partner shows no costs; ask them to enable Azure usage charges",
}
_NO_CLUSTER = "set LABS_AKS_CLUSTER to the cluster's name (`az aks list --output table`)"


@dataclass(frozen=True)
class Said:
    """A refusal as Azure worded it, on one line of bounded length and without credentials."""

    status: int
    code: str
    message: str
    within: str = ""
    """Every code and message of its `details`, of any length; `message` has the first of them."""

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}" if self.status else f"{self.code}: {self.message}"

    @property
    def kind(self) -> Kind:
        everything = f"{self.code} {self.message} {self.within}"
        if self.status == 412:
            return "changed"
        kinds: tuple[tuple[re.Pattern[str], Kind], ...] = (
            (_QUOTA, "quota"),
            (_SKU, "sku"),
            (_CAPACITY, "capacity"),
            (_BUSY, "busy"),
        )
        for pattern, kind in kinds:
            if pattern.search(everything):
                return kind
        return "autoscaler" if self.status == 400 and _AUTOSCALER.search(everything) else "other"


def said(status: int, body: str) -> Said:
    """An error's answer. AKS wraps its errors in `error`, as Resource Manager does, or not; a proxy sends anything."""
    try:
        answer = json.loads(body)
    except ValueError:
        return said_by(status, body)
    return said_by(status, answer.get("error", answer) if isinstance(answer, dict) else answer)


def said_by(status: int, error: object) -> Said:
    """An error object, as an answer or a failed operation carries one; or any text in its place."""
    if not isinstance(error, dict):
        return Said(status, "error", _presentable(error)[:LONGEST_MESSAGE])
    code, message = str(error.get("code") or "error"), _presentable(error.get("message"))
    within = "; ".join(f"{one.get('code')}: {_presentable(one.get('message'))}" for one in _details(error))
    if within:
        # The outer error of a scale-out often says no more than that it failed.
        message = f"{message[:LONGEST_OUTER_MESSAGE]} ({within})"
    return Said(status, redacted(code), message[:LONGEST_MESSAGE], within)


def _presentable(text: object) -> str:
    return redacted(one_line(text or "no explanation"))


def _details(error: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for one in error.get("details") or []:
        if isinstance(one, dict):
            yield one
            yield from _details(one)


def explained(refusal: Said, *, spot: bool = False) -> str:
    """The refusal with its remedy, in one line. `spot`: of the pool that it is about."""
    remedy = _SPOT_CAPACITY if spot and refusal.kind == "capacity" else _REMEDIES.get(refusal.kind)
    remedy = remedy or _access_remedy(refusal)
    return f"{refusal}; {remedy}" if remedy else str(refusal)


def _access_remedy(refusal: Said) -> str | None:
    if remedy := _ACCESS_REMEDIES.get(refusal.code):
        return remedy
    if refusal.status == 401:
        return "sign in again: `az login`"
    if denied := next(filter(None, (pattern.search(refusal.message) for pattern in _DENIED_ACTIONS)), None):
        return f"give this identity a role with {denied[1]} (docs/aks.md lists what labs need)"
    if refusal.status == 403:
        return "this identity or subscription may not do it; docs/aks.md lists what labs need"
    if refusal.status == 404 and "managedClusters" in refusal.message and "agentPools" not in refusal.message:
        return _NO_CLUSTER
    return None


def sign_in_failed(reason: str) -> str:
    """Why there is no token, in one line. Of `reason` only its code is repeated: it may hold what it shouldn't."""
    code = _SIGN_IN_CODE.search(reason)
    if code is None:
        return (
            "no Azure credentials were found: run `az login`; a pod needs a workload identity, CI a federated or "
            "service principal's one (docs/aks.md)"
        )
    if code[0] in _LOGIN_OVER:
        return f"the Azure login has expired or was revoked ({code[0]}): run `az login` again"
    return (
        f"Azure refused the sign-in ({code[0]}): run `az login`, or check the pod's or CI's identity: AZURE_CLIENT_ID, "
        "AZURE_TENANT_ID and its secret or federation (docs/aks.md)"
    )


def one_line(text: object) -> str:
    return " ".join(str(text).split())


def retry_after_s(header: str | None, *, default: float = 0.0) -> float:
    """Seconds to wait as a `Retry-After` header asks, which is a number or a date; `default` where it says neither."""
    if not header:
        return default
    try:
        return max(0.0, float(header))  # in this order NaN is 0, too
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return default
