"""The one way to Azure Resource Manager: the clients, the sign-in, and one request under a deadline.

Belongs here: making the SDK's clients, asking again what may be asked again, and making the SDK's exceptions ours.
Doesn't belong here: what is asked for (node_pools_azure.py, cost_query.py), or what a refusal means (azure_errors.py).

The SDK's own retries are off: they wait as long as Azure asks for, which may be longer than there is time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from lab_pipelines.words import counted
from resources.azure_errors import Said, explained, one_line, retry_after_s, said, sign_in_failed
from resources.cluster import ClusterError
from resources.kube_api import Deadline
from resources.redaction import redacted

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.exceptions import HttpResponseError
    from azure.mgmt.containerservice import ContainerServiceClient
    from azure.mgmt.costmanagement import CostManagementClient

TRIES = 4
"""How often a request is sent that Azure fails to answer."""
RETRY_S = 2.0
"""The shortest time after which something is asked again. Azure's own Retry-After counts when it is longer."""

_T = TypeVar("_T")


class AzureError(ClusterError):
    """Azure can't be used: no SDK, no sign-in, no right, or no such subscription, resource group or cluster."""


class UnansweredError(AzureError):
    """Azure failed, or the connection to it did. What was asked for may have been done."""

    def __init__(self, what: str, failure: str, detail: str, *, wait_s: float = 0.0, times: int = 1) -> None:
        super().__init__(f"{what}: {failure}, {counted(times, 'time')}{detail}")
        self._said = what, failure, detail
        self.wait_s = wait_s
        """How long Azure asks to be left alone; 0: it doesn't say."""

    def after(self, times: int) -> UnansweredError:
        """The same of so many tries."""
        return UnansweredError(*self._said, wait_s=self.wait_s, times=times)


class RefusedError(Exception):
    """Azure knows who asks and understands what for, and refuses."""

    def __init__(self, refusal: Said, wait_s: float) -> None:
        super().__init__(str(refusal))
        self.said = refusal
        self.wait_s = wait_s
        """How long Azure asks to be left alone; 0: it doesn't say."""


class ThrottledError(RefusedError):
    """Azure has too much to do (429)."""

    def __init__(self, refusal: Said, wait_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(refusal, wait_s)
        self.headers = headers


def container_service(
    subscription_id: str,
    *,
    base_url: str | None = None,
    credential: TokenCredential | None = None,
    **options: Any,
) -> ContainerServiceClient:
    """A client of AKS. Makes no request; the sign-in comes with the first one.

    `base_url`: Resource Manager's address; None: the one of the cloud that the SDK is set to. `credential`: None:
    workload identity, service principal, managed identity or `az login`, in the order of `DefaultAzureCredential`.
    `options` are the SDK's. Raises `AzureError` when the SDK is not installed, or told to sign in in an unknown way.
    """
    with _usable_sdk():
        from azure.mgmt.containerservice import ContainerServiceClient

        return ContainerServiceClient(credential or _signed_in(), subscription_id, base_url, retry_total=0, **options)


def cost_management(
    *, base_url: str | None = None, credential: TokenCredential | None = None, **options: Any
) -> CostManagementClient:
    """A client of Cost Management, as `container_service` makes one of AKS."""
    with _usable_sdk():
        from azure.mgmt.costmanagement import CostManagementClient

        return CostManagementClient(credential or _signed_in(), base_url, retry_total=0, **options)


@contextmanager
def _usable_sdk() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise AzureError(
            f"--target aks needs the Azure SDK, and {error.name or 'azure'} is not installed: `make setup` in this "
            "folder, or pip install 'lab-pipelines[aks]'"
        ) from None
    except ValueError as error:  # of the variables that the SDK reads itself
        raise AzureError(f"the Azure SDK is set up wrongly: {one_line(error)}") from None


def _signed_in() -> TokenCredential:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def ask(call: Callable[..., _T], *, what: str, deadline: Deadline, tries: int = TRIES, retry_s: float = RETRY_S) -> _T:
    """What `call(connection_timeout=…, read_timeout=…)` returns. `what` is asked for, in words for an error.

    Asks again as soon as Azure allows while it has too much to do (429), and up to `tries` times what it fails to
    answer. Raises `RefusedError`; `AzureError` without sign-in or access, and when throttled until the deadline;
    `UnansweredError` after the last try.
    """
    failed = 0
    while True:
        wait_s = 0.0
        try:
            return once(call, what=what, deadline=deadline)
        except ThrottledError as throttled:
            wait_s = throttled.wait_s
            if max(wait_s, retry_s) > deadline.remaining_s:
                raise AzureError(
                    f"{what}: Azure has too many requests to answer ({throttled.said}) and asks for {wait_s:.0f} s, "
                    f"longer than the {deadline.remaining_s:.0f} s that are left"
                ) from None
        except UnansweredError as error:
            failed, wait_s = failed + 1, error.wait_s
            if failed >= tries or max(wait_s, retry_s) > deadline.remaining_s:
                raise error.after(failed) from None
        time.sleep(max(wait_s, retry_s))


def once(call: Callable[..., _T], *, what: str, deadline: Deadline) -> _T:
    """As `ask`, sent once. Raises `ThrottledError` and `UnansweredError` for what may be asked again."""
    from azure.core.exceptions import AzureError as SdkError
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    connect_s, read_s = deadline.request_timeout
    try:
        return call(connection_timeout=connect_s, read_timeout=read_s)
    except HttpResponseError as error:
        if error.response is None or (isinstance(error, ClientAuthenticationError) and "AADSTS" in str(error)):
            raise AzureError(sign_in_failed(str(error))) from None
        refusal, wait_s = said(error.status_code or 0, _body(error)), _retry_after_s(error)
        if refusal.status == 429:
            raise ThrottledError(refusal, wait_s, getattr(error.response, "headers", {})) from None
        if refusal.status in (401, 403):
            raise AzureError(f"{what}: {explained(refusal)}") from None
        if refusal.status < 400:
            raise UnansweredError(what, "Azure's answer is no JSON", f": {refusal.message}") from None
        if refusal.status < 500 and refusal.status != 408:
            raise RefusedError(refusal, wait_s) from None
        raise UnansweredError(what, "Azure failed to answer", f": {refusal}", wait_s=wait_s) from None
    except SdkError as error:
        cause = redacted(one_line(error))[:200]
        raise UnansweredError(
            what,
            "Azure can't be reached",
            f" ({type(error).__name__}: {cause}); is the network up, and does a proxy need to be set?",
        ) from None


def _body(error: HttpResponseError) -> str:
    try:
        return error.response.text() if error.response is not None else ""
    except Exception:  # noqa: BLE001  an answer that broke off: whatever the SDK makes of that, there is no text
        return ""


def _retry_after_s(error: HttpResponseError) -> float:
    headers = getattr(error.response, "headers", {})
    return retry_after_s(headers.get("Retry-After"))
