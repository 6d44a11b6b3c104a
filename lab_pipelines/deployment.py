"""Where this process runs labs: the target and its settings, read from the environment once and validated.

Belongs here: names of environment variables, their defaults, and the message for a wrong value.
Doesn't belong here: anything that opens a file, a socket or an SDK.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

Target = Literal["local", "rehearsal", "kubernetes", "aks"]
TARGETS: tuple[Target, ...] = get_args(Target)
CLUSTER_TARGETS: tuple[Target, ...] = ("kubernetes", "aks")
ClusterEngine = Literal["vllm", "modelled"]
Reach = Literal["port-forward", "direct"]
LoadPlace = Literal["here", "in-cluster"]
Executor = Literal["in-process", "k8s"]
GpuSensor = Literal["off", "dry-run", "on"]
BudgetMode = Literal["off", "warn", "refuse", "cut"]
DEFAULT_IMAGE = "lab-pipelines:latest"
"""The image that deploy/Dockerfile builds, as a cluster of this machine (kind, minikube) finds it after a load."""

PRICE_MAX_AGE_DAYS: dict[Target, int] = {"aks": 30}
"""How old a price may be where Azure bills the nodes: refreshed weekly, four misses are borne. Elsewhere money is an
estimate from a dated list, of any age."""

MOST_LOAD_WORKERS = 32
"""Pods of a load, beside a lab's own, within the quota of its namespace."""

MOST_TURNS = 100
"""Of a run. So many find a difference of three tenths of the spread of one turn's pairs (statistics/paired.py)."""

REPO_ROOT = Path(__file__).resolve().parents[1]


class DeploymentError(ValueError):
    """A setting in the environment is wrong. The message names the variable, its value and the remedy."""


@dataclass(frozen=True)
class ExternalEngine:
    """An OpenAI-compatible server that is not ours (`LABS_OPENAI_BASE_URL`, ending in `/v1`)."""

    base_url: str
    model: str | None
    """None: the first model that `/v1/models` lists."""
    prometheus_url: str | None
    """None: the local Prometheus scrapes the server's own `/metrics`."""
    prometheus_selector: str
    """Label matchers, e.g. `namespace="llm"`, that narrow a shared Prometheus to this server. May be empty."""


@dataclass(frozen=True)
class ClusterSettings:
    """Which cluster the targets `kubernetes` and `aks` use, and how it is reached."""

    kubeconfig: Path | None = None
    """`LABS_KUBECONFIG`; None: the file that KUBECONFIG names, or the pod's own account within a cluster."""
    context: str | None = None
    """`LABS_KUBE_CONTEXT`; None: the kubeconfig's current one."""
    engine: ClusterEngine = "vllm"
    """`LABS_CLUSTER_ENGINE`: the chart that the spec names, or our modelled server for a cluster without GPUs."""
    image: str = DEFAULT_IMAGE
    """`LABS_IMAGE`: what the modelled server and load jobs run."""
    reach: Reach = "port-forward"
    """`LABS_REACH`: `direct` within the cluster's own network, else through the API server."""
    load: LoadPlace = "here"
    """`LABS_LOAD`: where Locust runs, in this process's machine or as Jobs in the cluster."""
    load_workers: int | None = None
    """`LABS_LOAD_WORKERS`, of a load in the cluster; None: as many as the plan asks for."""
    load_secret: str | None = None
    """`LABS_LOAD_SECRET`: the Secret whose keys are the environment of load pods, as the lake's store wants it (e.g.
    AZURE_STORAGE_SAS_TOKEN). It comes to the lab's namespace as the labs' own secrets do."""
    prometheus_url: str | None = None
    """`LABS_PROMETHEUS_URL`; None: `prometheus_service`."""
    prometheus_service: str = "monitoring/prometheus-operated:9090"
    """`LABS_PROMETHEUS_SERVICE`, as namespace/service:port."""
    loki_url: str | None = None
    """`LABS_LOKI_URL`; None: log lines are read from the pods themselves."""
    secret_store: str | None = None
    """`LABS_SECRET_STORE`: the External Secrets operator's ClusterSecretStore that has the labs' secrets."""
    secrets_namespace: str | None = None
    """`LABS_SECRETS_NAMESPACE`: the namespace whose Secrets a lab's namespace gets a copy of. Neither this nor
    `secret_store`: charts are told of no secrets, and only what anyone may read can be served."""
    subscription_id: str | None = None
    """`AZURE_SUBSCRIPTION_ID`, only for `aks`, as the two that follow."""
    resource_group: str | None = None
    """`LABS_AKS_RESOURCE_GROUP`."""
    aks_cluster: str | None = None
    """`LABS_AKS_CLUSTER`."""
    node_resource_group: str | None = None
    """`LABS_AKS_NODE_RESOURCE_GROUP`: where AKS keeps the cluster's machines, whose bill it is; None: the group that
    AKS makes by itself, `MC_RESOURCEGROUP_CLUSTER_REGION`."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ClusterSettings:
        """Read the variables above. Raises `DeploymentError` on the first wrong one."""
        kubeconfig, prometheus_url = environ.get("LABS_KUBECONFIG"), environ.get("LABS_PROMETHEUS_URL")
        loki_url, service = environ.get("LABS_LOKI_URL"), environ.get("LABS_PROMETHEUS_SERVICE")
        if service and re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+:[0-9]+", service) is None:
            raise DeploymentError(
                f"LABS_PROMETHEUS_SERVICE={service!r} is not namespace/service:port; e.g. {cls.prometheus_service}"
            )
        # A pod has this variable from its kubelet; there, every service of the cluster has a name.
        reach: Reach = "direct" if environ.get("KUBERNETES_SERVICE_HOST") and not kubeconfig else cls.reach
        return cls(
            kubeconfig=Path(kubeconfig).expanduser().resolve() if kubeconfig else None,
            context=environ.get("LABS_KUBE_CONTEXT") or None,
            engine=_one_of("LABS_CLUSTER_ENGINE", environ, get_args(ClusterEngine), cls.engine),
            image=environ.get("LABS_IMAGE") or cls.image,
            reach=_one_of("LABS_REACH", environ, get_args(Reach), reach),
            load=_one_of("LABS_LOAD", environ, get_args(LoadPlace), cls.load),
            load_workers=_load_workers(environ.get("LABS_LOAD_WORKERS")),
            load_secret=_load_secret(environ),
            prometheus_url=_http_url("LABS_PROMETHEUS_URL", prometheus_url) if prometheus_url else None,
            prometheus_service=service or cls.prometheus_service,
            loki_url=_http_url("LABS_LOKI_URL", loki_url) if loki_url else None,
            secret_store=environ.get("LABS_SECRET_STORE") or None,
            secrets_namespace=environ.get("LABS_SECRETS_NAMESPACE") or None,
            subscription_id=environ.get("AZURE_SUBSCRIPTION_ID") or None,
            resource_group=environ.get("LABS_AKS_RESOURCE_GROUP") or None,
            aks_cluster=environ.get("LABS_AKS_CLUSTER") or None,
            node_resource_group=environ.get("LABS_AKS_NODE_RESOURCE_GROUP") or None,
        )


def _load_workers(value: str | None) -> int | None:
    if not value:
        return None
    if not value.isdigit() or not 1 <= int(value) <= MOST_LOAD_WORKERS:
        raise DeploymentError(
            f"LABS_LOAD_WORKERS={value!r} is no number from 1 to {MOST_LOAD_WORKERS}; unset it, and the plan decides"
        )
    return int(value)


def _load_secret(environ: Mapping[str, str]) -> str | None:
    secret = environ.get("LABS_LOAD_SECRET") or None
    if secret and not (environ.get("LABS_SECRET_STORE") or environ.get("LABS_SECRETS_NAMESPACE")):
        raise DeploymentError(
            f"LABS_LOAD_SECRET={secret!r} can't come to a lab's namespace; set LABS_SECRET_STORE or "
            "LABS_SECRETS_NAMESPACE to where it is kept"
        )
    return secret


def _one_of(name: str, environ: Mapping[str, str], known: tuple[Any, ...], default: Any) -> Any:
    value = environ.get(name) or default
    if value not in known:
        raise DeploymentError(f"{name}={value!r} is not known; set one of: {', '.join(known)}")
    return value


@dataclass(frozen=True)
class Deployment:
    """One process's settings. Built by `Deployment.from_env()`, or directly by a test."""

    target: Target = "local"
    pace: str | None = None
    """Which of the spec's paces to run; None: the target's default."""
    variant: str | None = None
    """Which of the spec's variants to run; None: its only one."""
    turns: int | None = None
    """`LABS_TURNS`: how many times a run walks the variants; None: as the lab's spec says."""
    data_dir: Path = REPO_ROOT / "warehouse" / "data"
    lake_url: str | None = None
    """`LABS_LAKE_URL`: where the lake is, any URL that fsspec knows; None: the folder `lake` below `data_dir`."""
    external_engine: ExternalEngine | None = None
    sku: str | None = None
    """Azure SKU that prices an external engine's machine; None: its cost is not known. Ours is the lab's."""
    region: str = "eastus"
    price_max_age: int | Literal["off"] | None = None
    """`LABS_PRICE_MAX_AGE_DAYS`: how old the price of a node may be, in days; None: as the target has it."""
    retail_prices_url: str = "https://prices.azure.com"
    """`LABS_RETAIL_PRICES_URL`: where `labs prices refresh` finds Azure's list."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    executor: Executor = "in-process"
    """`LABS_EXECUTOR`: `k8s` gives each step a pod of its own, where Dagster's runs are Jobs of a cluster."""
    budget_usd: Decimal | None = None
    """The most that one run may cost; None: no limit. A run whose plan allows more doesn't start."""
    gpu_sensor: GpuSensor = "dry-run"
    """`LABS_GPU_SENSOR`: whether the sensor decides and acts, only decides, or neither."""
    gpu_policy: Path | None = None
    """`LABS_GPU_POLICY`: by which settings it decides; None: lab_pipelines/gpu_policy.yaml."""
    budget_guard: BudgetMode = "refuse"
    """`LABS_BUDGET_GUARD`: how far it may go where a budget is spent: not at all, warn, refuse new GPU leases, or end
    running ones."""
    budgets: Path | None = None
    """`LABS_BUDGETS`: the budgets; None: lab_pipelines/budgets.yaml, which has none."""

    @property
    def price_max_age_days(self) -> int | None:
        """How old the price of a node may be; None: as old as it is."""
        if self.price_max_age is None:
            return PRICE_MAX_AGE_DAYS.get(self.target)
        return None if self.price_max_age == "off" else self.price_max_age

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Deployment:
        """Read the `LABS_*` variables. Raises `DeploymentError` on the first wrong one."""
        target = environ.get("LABS_TARGET", "local")
        if target not in TARGETS:
            raise DeploymentError(f"LABS_TARGET={target!r} is not a target; set one of: {', '.join(TARGETS)}")
        data_dir = environ.get("LABS_DATA_DIR")
        return cls(
            target=cast(Target, target),
            pace=environ.get("LABS_PACE") or None,
            variant=environ.get("LABS_VARIANT") or None,
            turns=_turns(environ.get("LABS_TURNS")),
            data_dir=Path(data_dir).resolve() if data_dir else cls.data_dir,
            lake_url=_lake_url(environ.get("LABS_LAKE_URL")),
            external_engine=None if target in CLUSTER_TARGETS else _external_engine(environ),
            cluster=ClusterSettings.from_env(environ) if target in CLUSTER_TARGETS else ClusterSettings(),
            sku=environ.get("LABS_SKU") or None,
            region=environ.get("LABS_REGION") or cls.region,
            price_max_age=_price_max_age(environ.get("LABS_PRICE_MAX_AGE_DAYS")),
            retail_prices_url=_http_url(
                "LABS_RETAIL_PRICES_URL", environ.get("LABS_RETAIL_PRICES_URL") or cls.retail_prices_url
            ),
            executor=_executor(environ, target),
            budget_usd=_usd("LABS_BUDGET_USD", environ.get("LABS_BUDGET_USD")),
            gpu_sensor=_one_of("LABS_GPU_SENSOR", environ, get_args(GpuSensor), cls.gpu_sensor),
            gpu_policy=Path(policy).resolve() if (policy := environ.get("LABS_GPU_POLICY")) else None,
            budget_guard=_one_of("LABS_BUDGET_GUARD", environ, get_args(BudgetMode), cls.budget_guard),
            # Not resolved: a mounted ConfigMap is a link, which goes elsewhere as soon as the budgets are changed.
            budgets=Path(budgets).absolute() if (budgets := environ.get("LABS_BUDGETS")) else None,
        )


def _turns(value: str | None) -> int | None:
    if not value:
        return None
    if not value.isdecimal() or not 1 <= int(value) <= MOST_TURNS:
        raise DeploymentError(
            f"LABS_TURNS={value!r} is no number from 1 to {MOST_TURNS}; unset it, and the lab decides"
        )
    return int(value)


def _usd(name: str, value: str | None) -> Decimal | None:
    if not value:
        return None
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise DeploymentError(f"{name}={value!r} is not an amount in USD; set e.g. {name}=12.50")
    return amount


def _price_max_age(value: str | None) -> int | Literal["off"] | None:
    if not value:
        return None
    if value == "off":
        return "off"
    if not value.isdecimal() or int(value) < 1:
        raise DeploymentError(f"LABS_PRICE_MAX_AGE_DAYS={value!r} is no number of days; set e.g. 30, or off")
    return int(value)


def _lake_url(value: str | None) -> str | None:
    if not value:
        return None
    parts = urlsplit(value)
    if not parts.scheme or not (parts.netloc or parts.path.strip("/")):
        raise DeploymentError(
            f"LABS_LAKE_URL={value!r} is not a URL; expected e.g. abfss://lake@account.dfs.core.windows.net/lake"
        )
    # Not shown: what is wrong with it is that it holds a credential.
    if parts.password or parts.query:
        raise DeploymentError(
            "LABS_LAKE_URL holds a password or a query; leave it out, and let the identity of this machine or pod "
            "have the right instead (docs/deploy.md)"
        )
    return value


def _executor(environ: Mapping[str, str], target: str) -> Executor:
    executor: Executor = _one_of("LABS_EXECUTOR", environ, get_args(Executor), Deployment.executor)
    if executor == "k8s" and target not in CLUSTER_TARGETS:
        raise DeploymentError(
            f"LABS_EXECUTOR=k8s needs a target whose stacks are in a cluster, and LABS_TARGET={target} is none; "
            f"unset it, or set LABS_TARGET to: {', '.join(CLUSTER_TARGETS)}"
        )
    return executor


def _external_engine(environ: Mapping[str, str]) -> ExternalEngine | None:
    base_url = environ.get("LABS_OPENAI_BASE_URL")
    prometheus_url = environ.get("LABS_PROMETHEUS_URL") or None
    if not base_url:
        if prometheus_url:
            raise DeploymentError(
                "LABS_PROMETHEUS_URL is set without LABS_OPENAI_BASE_URL; set both, or neither for the modelled server"
            )
        return None
    return ExternalEngine(
        base_url=_http_url("LABS_OPENAI_BASE_URL", base_url),
        model=environ.get("LABS_OPENAI_MODEL") or None,
        prometheus_url=_http_url("LABS_PROMETHEUS_URL", prometheus_url) if prometheus_url else None,
        prometheus_selector=environ.get("LABS_PROMETHEUS_SELECTOR", ""),
    )


def _http_url(name: str, value: str) -> str:
    parts = urlsplit(value)
    if "@" in value:  # not repeated: it is or may be a password
        raise DeploymentError(
            f"{name} has a user or a password before its host. Rows, logs and the lab's own objects would repeat it: "
            "give the URL without, of a proxy that adds them if the server wants some"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DeploymentError(f"{name}={value!r} is not an http(s) URL; expected e.g. http://127.0.0.1:8000/v1")
    return value.rstrip("/")
