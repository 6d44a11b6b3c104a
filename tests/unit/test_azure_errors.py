"""What Azure says, and what we make of it: the kind of refusal, its remedy, and never a credential."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from resources import azure_errors
from resources.azure_errors import Kind, Said, retry_after_s
from resources.redaction import redacted

QUOTA = (
    "Operation could not be completed as it results in exceeding approved standardNCASv3_T4Family Cores quota. "
    "Additional details - Deployment Model: Resource Manager, Location: eastus, Current Limit: 8, Current Usage: 8."
)
BUSY = (
    "Operation is not allowed: Another agentpool operation (nodepool1 - Creating) is in progress, please wait for it."
)


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (409, "OperationNotAllowed", BUSY, "busy"),
        (409, "OperationNotAllowed", "Operation is not allowed: Another operation (Updating) is in progress", "busy"),
        (409, "OperationNotAllowed", QUOTA, "quota"),
        (400, "ErrCode_InsufficientVCPUQuota", "Insufficient vcpu quota requested 8, remaining 0", "quota"),
        (400, "QuotaExceeded", "exceeding approved Total Regional Cores", "quota"),
        (412, "PreconditionFailed", "The etag does not match", "changed"),
        (409, "SkuNotAvailable", "The requested size is not available in location 'eastus'", "sku"),
        (400, "BadRequest", "The VM size of Standard_NC6s_v3 is not allowed in your subscription", "sku"),
        (0, "AllocationFailed", "We do not have sufficient capacity for the requested VM size", "capacity"),
        (0, "OverconstrainedZonalAllocationRequest", "Allocation failed.", "capacity"),
        (400, "BadRequest", "Cannot manually scale and enable cluster autoscaler in the same update", "autoscaler"),
        (400, "InvalidParameter", "Required parameter properties.count is missing (null).", "other"),
        (409, "Conflict", "A conflict of another kind", "other"),
    ],
)
def test_a_refusal_has_the_kind_that_its_words_say(status: int, code: str, message: str, kind: Kind) -> None:
    assert Said(status, code, message).kind == kind


def test_an_error_is_read_with_or_without_its_wrapper() -> None:
    inner = {"code": "OperationNotAllowed", "details": None, "message": "Not\nnow.", "subcode": ""}
    wrapped, bare = azure_errors.said(409, json.dumps({"error": inner})), azure_errors.said(409, json.dumps(inner))
    assert wrapped == bare
    assert str(bare) == "409 OperationNotAllowed: Not now."


@pytest.mark.parametrize("body", ["", "<html>\nno</html>", "[]", '"text"', "null", '{"error": "invalid_client"}', "{}"])
def test_an_error_of_any_shape_is_one_line(body: str) -> None:
    assert "\n" not in str(azure_errors.said(502, body))


def test_the_kind_comes_from_the_innermost_error() -> None:
    inner = {"code": "AllocationFailed", "message": "Allocation failed."}
    middle = {"code": "InvalidTemplateDeployment", "message": "Not valid.", "details": [inner]}
    found = azure_errors.said_by(0, {"code": "ResourceOperationFailure", "message": "It failed.", "details": [middle]})
    assert found.kind == "capacity"
    assert str(found).startswith("ResourceOperationFailure: It failed. (InvalidTemplateDeployment")


def test_a_lack_of_spot_machines_has_a_remedy_of_its_own() -> None:
    said = Said(0, "AllocationFailed", "No capacity.")
    assert "isn't Spot" in azure_errors.explained(said, spot=True)
    assert "Spot" not in azure_errors.explained(said)


def test_a_message_is_cut_before_its_endless_link() -> None:
    message = QUOTA + " https://example.com/" + "%7B" * 1000
    outer = {"code": "Failed", "message": "x" * 1000, "details": [{"code": "QuotaExceeded", "message": message}]}
    for error in ({"code": "QuotaExceeded", "message": message}, outer):
        explained = azure_errors.explained(azure_errors.said_by(409, error))
        assert len(explained) < 700 and "Current Limit: 8" in explained and "az vm list-usage" in explained


@pytest.mark.parametrize(
    ("status", "code", "message", "remedy"),
    [
        (401, "InvalidAuthenticationTokenTenant", "The access token is from the wrong issuer.", "az login --tenant"),
        (401, "ExpiredAuthenticationToken", "The access token expiry time is in the past.", "az login"),
        (
            400,
            "InvalidSubscriptionId",
            "The provided subscription identifier 'x' is malformed.",
            "AZURE_SUBSCRIPTION_ID",
        ),
        (403, "RequestDisallowedByPolicy", "A policy forbids it.", "docs/aks.md"),
        (404, "NotFound", "The resource managedClusters/x/agentPools/y could not be found.", None),
    ],
)
def test_a_refused_access_names_what_to_set(status: int, code: str, message: str, remedy: str | None) -> None:
    explained = azure_errors.explained(Said(status, code, message))
    assert explained == f"{status} {code}: {message}" if remedy is None else remedy in explained


def test_the_right_that_is_missing_on_a_linked_resource_is_the_one_that_is_named() -> None:
    message = (
        "The client has permission to perform action 'Microsoft.ContainerService/managedClusters/agentPools/write' on "
        "scope 'x'; however, it does not have permission to perform action(s) "
        "'Microsoft.Network/virtualNetworks/subnets/join/action' on the linked scope(s) 'y'."
    )
    explained = azure_errors.explained(Said(403, "LinkedAuthorizationFailed", message))
    assert explained.endswith(
        "give this identity a role with Microsoft.Network/virtualNetworks/subnets/join/action "
        "(docs/aks.md lists what labs need)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Bearer abc.def-ghi",
        "client_secret=hunter2&scope=x",
        'said {"access_token": "hunter2"}',
        "https://storage.example.com/x?sv=1&sig=hunter2",
        "token eyJhbGciOi.eyJzdWIiOi.c2ln in the middle",
    ],
)
def test_what_looks_like_a_credential_is_removed(text: str) -> None:
    cleaned = redacted(text)
    assert "[hidden]" in cleaned
    for secret in ("hunter2", "abc.def", "eyJ", "c2ln"):
        assert secret not in cleaned


def test_ordinary_words_are_left_alone() -> None:
    assert redacted(BUSY) == BUSY
    assert redacted(QUOTA) == QUOTA


def test_a_failed_sign_in_repeats_nothing_but_its_code() -> None:
    said = azure_errors.sign_in_failed("AADSTS7000215: Invalid client secret provided: 'hunter2'. Trace ID: 1")
    assert "AADSTS7000215" in said and "hunter2" not in said


def test_a_wait_is_a_number_or_a_date() -> None:
    assert retry_after_s(None) == 0.0 and retry_after_s("soon") == 0.0 and retry_after_s("-5") == 0.0
    assert retry_after_s("17") == retry_after_s("17", default=4.0) == 17.0
    assert retry_after_s(None, default=4.0) == retry_after_s("soon", default=4.0) == 4.0
    assert retry_after_s("0", default=4.0) == retry_after_s("nan", default=4.0) == 0.0
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    assert 500 < retry_after_s(later) <= 600
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
