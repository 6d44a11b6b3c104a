"""Whoever can't use Azure gets one clear line, and no line anywhere holds a credential.

The sign-in is azure-identity's own, through an `az` that the test writes; Resource Manager is the double.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab_pipelines.deployment import ClusterSettings, DeploymentError
from resources.azure_session import AzureError
from resources.cluster import ClusterError
from resources.kube_api import Deadline
from resources.node_pools_azure import AzureNodePools
from tests.support.azure_agent_pools import SUBSCRIPTION
from tests.support.azure_arm import AzureArm
from tests.support.azure_pools import PoolsOverLoopback, pools_of


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def arm() -> Iterator[AzureArm]:
    with AzureArm() as azure:
        azure.add("t4")
        yield azure


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"subscription_id": "11111111-1111-1111-1111-111111111111"}, "AZURE_SUBSCRIPTION_ID"),
        ({"resource_group": "elsewhere"}, "LABS_AKS_RESOURCE_GROUP"),
        ({"cluster": "another"}, "LABS_AKS_CLUSTER"),
        ({"token": "of-somebody-else"}, "az login"),
    ],
)
def test_a_wrong_setting_is_named(arm: AzureArm, settings: dict[str, str], remedy: str) -> None:
    pools = pools_of(arm, **settings)
    for ask in (pools.pools, lambda: pools.pool("t4")):
        with pytest.raises(ClusterError) as raised:
            ask()
        assert remedy in str(raised.value) and "\n" not in str(raised.value)


def test_a_right_that_is_missing_is_named(arm: AzureArm) -> None:
    action = "Microsoft.ContainerService/managedClusters/agentPools/write"
    arm.denied.add(action)
    pools = pools_of(arm)
    with pytest.raises(AzureError, match=f"give this identity a role with {action}"):
        pools.scale(pools.pool("t4"), 2, tags={}, deadline=Deadline.within(5), progress=lambda _: None)


def test_settings_that_are_missing_are_named_together() -> None:
    with pytest.raises(DeploymentError, match="set LABS_AKS_RESOURCE_GROUP, LABS_AKS_CLUSTER"):
        AzureNodePools.of(ClusterSettings(subscription_id=SUBSCRIPTION))
    pools = AzureNodePools.of(
        ClusterSettings(subscription_id=SUBSCRIPTION, resource_group="labs", aks_cluster="labs-aks")
    )
    assert (pools.subscription_id, pools.resource_group, pools.cluster) == (SUBSCRIPTION, "labs", "labs-aks")


@pytest.mark.parametrize("missing", ["azure.identity", "azure.mgmt.containerservice"])
def test_without_the_sdk_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(AzureError, match=rf"{missing} is not installed: `make setup`.*lab-pipelines\[aks\]"):
        AzureNodePools(subscription_id=SUBSCRIPTION, resource_group="labs", cluster="labs-aks").pools()


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an `az` of the test's own goes: the only program on PATH, and the only way to sign in."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    return programs / "az"


def put_program(path: Path, script: str) -> None:
    path.write_text(f"#!{os.path.realpath('/bin/sh')}\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_the_sign_in_of_az_is_used(arm: AzureArm, az: Path) -> None:
    expires = int(time.time()) + 3600
    put_program(az, f"echo '{json.dumps({'accessToken': 'token-of-az', 'expires_on': expires})}'")
    arm.token = "token-of-az"
    assert [pool.name for pool in pools_of(arm, token="sign-in").pools()] == ["t4"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, "no Azure credentials were found: run `az login`"),
        ("echo 'ERROR: Please run '\"'az login'\"' to setup account.' >&2; exit 1", "no Azure credentials were found"),
        (
            "echo 'ERROR: AADSTS70043: The refresh token has expired. Trace ID: hunter2' >&2; exit 1",
            r"has expired or was revoked \(AADSTS70043\): run `az login` again",
        ),
        ("echo 'ERROR: AADSTS50076: You must use MFA. hunter2' >&2; exit 1", r"refused the sign-in \(AADSTS50076\)"),
    ],
)
def test_without_a_sign_in_the_line_says_what_to_do(arm: AzureArm, az: Path, script: str | None, said: str) -> None:
    if script is not None:
        put_program(az, script)
    with pytest.raises(AzureError, match=said) as raised:
        pools_of(arm, token="sign-in").pools()
    assert "\n" not in str(raised.value) and "hunter2" not in str(raised.value)
    assert arm.seen == []


def test_an_unknown_way_to_sign_in_is_one_line(arm: AzureArm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "by-guessing")
    with pytest.raises(AzureError, match=r"set up wrongly: .*AZURE_TOKEN_CREDENTIALS"):
        pools_of(arm, token="sign-in").pools()


def test_a_token_is_in_no_error_log_progress_or_representation(
    arm: AzureArm, az: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Made of parts, or this file would hold what looks like a token.
    secret = ".".join(["eyJhbGciOiJub25lIn0", "eyJwbGFudGVkIjoic2VjcmV0In0", "c2lnbmF0dXJl"])
    put_program(az, f"echo '{json.dumps({'accessToken': secret, 'expires_on': int(time.time()) + 3600})}'")
    arm.token = secret
    caplog.set_level(logging.DEBUG)
    pools: PoolsOverLoopback = pools_of(arm, token="sign-in")
    said: list[str] = []
    pools.scale(pools.pool("t4"), 2, tags={}, deadline=Deadline.within(20), progress=said.append)
    # Somebody on the way repeats what was sent, as debugging proxies do.
    echo = f"Another operation is in progress. Authorization: Bearer {secret}, access_token={secret}"
    for status in (400, 401, 403, 409, 429, 500):
        arm.fault(
            "PUT", "agentPools", status=status, code="Echo", message=echo, headers={"Retry-After": "99"}, times=10
        )
        with pytest.raises(ClusterError) as raised:
            pools.scale(pools.pool("t4"), 0, tags={}, deadline=Deadline.within(5), progress=said.append)
        arm.clear_faults()
        said += [str(raised.value), repr(raised.value)]
    written = "\n".join([*said, caplog.text, repr(pools), str(pools)])
    assert "[hidden]" in written
    for part in [secret, *secret.split(".")]:
        assert part not in written
