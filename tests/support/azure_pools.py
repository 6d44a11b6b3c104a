"""The project's own node pools on loopback: all of it real but the sign-in, which only Azure could give."""

from __future__ import annotations

from typing import Any

from resources import azure_session
from resources.node_pools_azure import AzureNodePools
from tests.support.azure_agent_pools import CLUSTER, RESOURCE_GROUP, SUBSCRIPTION
from tests.support.azure_arm import AzureArm


def pools_of(arm: AzureArm, **settings: Any) -> PoolsOverLoopback:
    """The project's own pools of the double's cluster. `token="sign-in"`: as in production, by azure-identity."""
    asked = {
        "subscription_id": SUBSCRIPTION,
        "resource_group": RESOURCE_GROUP,
        "cluster": CLUSTER,
        "base_url": arm.url,
        "token": arm.token,
        "retry_s": 0.01,
    }
    return PoolsOverLoopback(**{**asked, **settings})


class PoolsOverLoopback(AzureNodePools):
    """The project's own pools with a token in place of a sign-in, which only Azure could give."""

    token: str

    def connect(self) -> Any:
        return azure_session.container_service(
            self.subscription_id,
            base_url=self.base_url,
            credential=None if self.token == "sign-in" else FixedToken(self.token),
            per_call_policies=[over_http()],
        )


def over_http() -> Any:
    """A policy that lets the SDK send its token over plain HTTP, which it does only when told to."""
    from azure.core.pipeline import PipelineRequest
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class OverHttp(SansIOHTTPPolicy[Any, Any]):
        def on_request(self, request: PipelineRequest[Any]) -> None:
            request.context.options["enforce_https"] = False

    return OverHttp()


class FixedToken:
    """A credential whose token is known."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(self._token, 2**33)
