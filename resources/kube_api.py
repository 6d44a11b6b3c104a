"""Requests to a Kubernetes API server: each with a deadline, each failure in words that say what to do.

Belongs here: the connection, one request, one watch, and what the API server's errors mean.
Doesn't belong here: what is asked for (manifests.py), or which cluster a lab runs on (cluster_*.py).
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import yaml

from resources.cluster import ClusterError
from resources.redaction import redacted

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, ApiException

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
"""Of one request. An admission webhook may take ten seconds of it."""
WATCH_S = 60.0
"""The server ends a watch after so long, and the caller begins anew: a connection that died unseen is noticed."""
RETRY_S = 0.25

APPLY_PATCH = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
"""How a body is sent: what `apply` does, a change of some fields, a whole object or the options of a deletion."""

_T = TypeVar("_T")
_NO_PERMISSION = re.compile(r'User ".*" cannot \w+ resource ')
# An unknown field is answered with 500 by server-side apply, not with 400 (seen on 1.36).
_WRONG_FIELDS = re.compile(r"failed to create typed (patch|live) object")


class RefusedError(Exception):
    """The API server understood who asks, and does not take what was asked."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock until which something may take."""

    at: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @property
    def remaining_s(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    @property
    def request_timeout(self) -> tuple[float, float]:
        """(connect, read) of the next request, in seconds. At least one, so that the last one can be answered."""
        return CONNECT_TIMEOUT_S, min(READ_TIMEOUT_S, max(self.remaining_s, 1.0))


def connect(kubeconfig: Path | None = None, context: str | None = None) -> ApiClient:
    """A client of a cluster that answers. None: the file that `KUBECONFIG` names, and that file's current context;
    without one, within a pod, the pod's own account.

    Raises `ClusterError` without a usable file, for a context that it lacks, and for a cluster that can't be reached.
    """
    from kubernetes import client, config

    configuration = cast(Any, client.Configuration())
    # What failed is repeated here or not at all: urllib3's three silent tries would treble every timeout.
    configuration.retries = 0
    try:
        if kubeconfig is None and context is None and _in_a_pod():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                config_file=str(kubeconfig) if kubeconfig else None,
                context=context,
                client_configuration=configuration,
                persist_config=False,  # or it writes refreshed tokens into the user's own file
            )
    except (config.ConfigException, OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "the kubeconfig (KUBECONFIG, else ~/.kube/config)"
        raise ClusterError(
            f"{where} can't be used: {_one_line(error)}; `kubectl config get-contexts` lists what it has, "
            "and `az aks get-credentials` writes one for AKS"
        ) from None
    api_client = client.ApiClient(configuration)
    try:
        request(api_client, "GET", "/version", deadline=Deadline.within(READ_TIMEOUT_S))
    except RefusedError as refused:
        api_client.close()
        raise ClusterError(f"{host(api_client)} does not answer like a Kubernetes API server: {refused}") from None
    except BaseException:
        api_client.close()
        raise
    return api_client


def _in_a_pod() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not os.environ.get("KUBECONFIG")


def host(api_client: ApiClient) -> str:
    """The API server's address, as the kubeconfig has it."""
    return str(cast(Any, api_client.configuration).host)


def request(
    api_client: ApiClient,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    content_type: str = APPLY_PATCH,
    deadline: Deadline,
) -> Any:
    """The answer's JSON; a body is sent as a server-side apply, or as `content_type` says. An overloaded server is
    asked again until the deadline.

    Raises `RefusedError`, or `ClusterError` when the server can't be reached, fails, or does not know or allow us.
    """
    headers = {"Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = content_type

    def ask() -> Any:
        data, _, _ = cast(Any, api_client).call_api(
            path,
            method,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            response_types_map={200: "object", 201: "object", 202: "object"},
            auth_settings=["BearerToken"],
            _request_timeout=deadline.request_timeout,
        )
        return data

    return _answer(api_client, path, ask, deadline)


def read_text(api_client: ApiClient, path: str, *, query: Mapping[str, str], deadline: Deadline) -> str:
    """An answer that is plain text, such as a pod's log. Raises as `request`."""

    def ask() -> str:
        # Not as a str of the client's own making: it would be the text of a bytes object.
        response = cast(Any, api_client).call_api(
            path,
            "GET",
            query_params=list(query.items()),
            header_params={"Accept": "text/plain, */*"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=deadline.request_timeout,
        )
        try:
            return response.data.decode(errors="replace")
        finally:
            response.release_conn()

    return _answer(api_client, path, ask, deadline)


def _answer(api_client: ApiClient, path: str, ask: Callable[[], _T], deadline: Deadline) -> _T:
    """What `ask` answers; an overloaded server is asked again. Raises as `request`."""
    import urllib3
    from kubernetes.client import ApiException

    while True:
        try:
            return ask()
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(api_client, error) from None
        except ApiException as error:
            wait_s = _overloaded_for_s(error)
            if wait_s is None or wait_s > deadline.remaining_s:
                raise _explained(api_client, path, error) from None
            time.sleep(wait_s)  # as long as the server asked for


def watch(
    api_client: ApiClient, path: str, *, selector: str, version: str, deadline: Deadline
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """(type, object) of every change below `path` after `version`, until the server or the deadline ends the watch.

    A `version` that the server has forgotten (410) also ends it, and so does a server that is overloaded, fails or
    breaks the connection off: list again, which tells whether it is there. Raises as `request` for what it refuses.
    """
    import urllib3
    from kubernetes.client import ApiException
    from kubernetes.watch.watch import iter_resp_lines

    last_s = math.ceil(max(min(deadline.remaining_s, WATCH_S), 1.0))
    query = {"watch": "true", "labelSelector": selector, "resourceVersion": version, "timeoutSeconds": str(last_s)}
    try:
        # Not by Watch.stream: it reads each object into a model, and a model refuses what the server may leave out.
        response = cast(Any, api_client).call_api(
            path,
            "GET",
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=(CONNECT_TIMEOUT_S, last_s + CONNECT_TIMEOUT_S),
        )
        try:
            for line in iter_resp_lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    if _passes(status.get("code")):
                        return
                    raise ClusterError(f"{host(api_client)}: watching {path}: {status.get('message')}")
                yield event["type"], event["object"]
        finally:
            response.close()
            response.release_conn()
    except urllib3.exceptions.HTTPError:
        return  # broken off, or the server forgot to end it
    except ApiException as error:
        if not _passes(error.status):
            raise _explained(api_client, path, error) from None


def _passes(status: int | None) -> bool:
    """Whether what has ended a watch may be over when it is begun anew."""
    return status is not None and (status in (410, 429) or status >= 500)


def _unreachable(api_client: ApiClient, error: Exception) -> ClusterError:
    cause = getattr(error, "reason", None) or error
    return ClusterError(
        f"{host(api_client)} can't be reached ({type(cause).__name__}: {_one_line(cause)}); "
        "is the cluster up, and is this the right kubeconfig?"
    )


def _overloaded_for_s(error: ApiException) -> float | None:
    """How long to leave a server alone that has too much to do (429, 503); None: it is something else."""
    if error.status not in (429, 503):
        return None
    asked = cast(Mapping[str, str], error.headers or {}).get("Retry-After", "")
    return float(asked) if asked.isdigit() else RETRY_S


def _explained(api_client: ApiClient, what: str, error: ApiException) -> ClusterError | RefusedError:
    status, (reason, message) = error.status or 0, _status(error)
    at = host(api_client)
    if status == 401:
        return ClusterError(f"{at} does not know who asks (401 {message}); sign in to the cluster again")
    if status == 403 and _NO_PERMISSION.search(message):
        return ClusterError(f"{at} does not allow it: {message}; ask for a role that does")
    if status < 400 or (status >= 500 and not _WRONG_FIELDS.search(message)):
        return ClusterError(f"{at}: {what}: {status} {reason}: {message}")
    return RefusedError(status, reason, message)


def _status(error: ApiException) -> tuple[str, str]:
    """Reason and message of the answer's `Status` object; a proxy on the way may answer with something else."""
    try:
        status = json.loads(error.body or "")
        reason, message = str(status.get("reason") or error.reason), str(status["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        reason, message = str(error.reason), _one_line(error.body)[:300]
    # An admission webhook or a proxy may repeat what it was sent.
    return reason, redacted(message)


def _one_line(said: object) -> str:
    return " ".join(str(said).split())


def selector_of(labels: Mapping[str, str]) -> str:
    """Labels as a label selector that asks for all of them."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def resources_of(api_client: ApiClient, version: str, *, deadline: Deadline) -> Sequence[Mapping[str, Any]]:
    """What discovery says of an API version such as `v1` or `batch/v1`; nothing for one that the cluster lacks."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        return request(api_client, "GET", root, deadline=deadline)["resources"]
    except RefusedError as refused:
        if refused.status != 404:
            raise
        return []
