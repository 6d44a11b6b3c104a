"""Builds the code location for one target: the same assets everywhere, another bundle of resources.

Belongs here: which resources a target has; each target's own are imported with it.
Doesn't belong here: reading the environment (deployment.py), or what the resources do (resources/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dagster import (
    Definitions,
    ExecutorDefinition,
    in_process_executor,
    load_asset_checks_from_modules,
    load_assets_from_modules,
)

from assets import (
    bill,
    checks,
    claim_checks,
    cost_attribution,
    deployed_stack,
    finops_sheet,
    load_run,
    metrics_snapshot,
    year_in_numbers,
)
from lab_pipelines.budgets import BUDGETS_FILE
from lab_pipelines.deployment import ClusterSettings, Deployment, DeploymentError, Target
from lab_pipelines.gpu_policy import POLICY_FILE
from lab_pipelines.jobs import bill_job, lab_job
from lab_pipelines.schedules import schedules
from lab_pipelines.sensors import budget_guard as budget_guard_sensor
from lab_pipelines.sensors import gpu_scale_to_zero, reaper, run_status
from resources.billing import Billing, PriceSheetBilling
from resources.budget_guard import BudgetGuard
from resources.cluster import Cluster
from resources.gpu_switch import GpuSwitch
from resources.kube_reach import Service
from resources.labs import Labs
from resources.load_generator import LoadGenerator
from resources.node_pools import NodePools, NoNodePools
from resources.pool_signals import PoolSignals
from resources.telemetry import Telemetry
from resources.warehouse import Warehouse


def build_defs(
    *, target: Target, deployment: Deployment | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> Definitions:
    """All assets and checks with the resources of `target`; `resource_overrides` replaces some of them, for tests.

    Raises `DeploymentError` for settings that the target needs and lacks.
    """
    settings = replace(deployment or Deployment(), target=target)
    return Definitions(
        assets=load_assets_from_modules(
            [deployed_stack, load_run, metrics_snapshot, cost_attribution, finops_sheet, bill, year_in_numbers]
        ),
        asset_checks=load_asset_checks_from_modules([checks, claim_checks]),
        jobs=[lab_job, bill_job],
        schedules=schedules,
        sensors=[
            *reaper.sensors,
            *budget_guard_sensor.sensors,
            *gpu_scale_to_zero.sensors,
            *run_status.sensors,
        ],
        resources={**RESOURCES[target](settings), **(resource_overrides or {})},
        executor=_executor(settings),
    )


def get_local_resources(settings: Deployment) -> dict[str, Any]:
    """Processes on this machine; an engine that is not ours when the deployment names one."""
    from resources.load_locust import LocustLoadGenerator

    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": _local_cluster(settings, data_dir),
        "load_generator": LocustLoadGenerator(),
        "telemetry": Telemetry(),
        **_pools(settings, NoNodePools()),
        "billing": _prices(settings),
        "warehouse": Warehouse(data_dir=data_dir, lake_url=settings.lake_url),
    }


def get_rehearsal_resources(settings: Deployment) -> dict[str, Any]:
    """A model of the stack in virtual time, in this process."""
    from resources.cluster_rehearsal import RehearsalCluster
    from resources.load_rehearsal import RehearsalLoadGenerator
    from resources.telemetry_rehearsal import RehearsalTelemetry

    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": RehearsalCluster(data_dir=data_dir),
        "load_generator": RehearsalLoadGenerator(),
        "telemetry": RehearsalTelemetry(),
        **_pools(settings, NoNodePools()),
        "billing": _prices(settings),
        "warehouse": Warehouse(data_dir=data_dir, lake_url=settings.lake_url),
    }


def get_kubernetes_resources(settings: Deployment) -> dict[str, Any]:
    """Helm releases in whatever cluster the kubeconfig names; its nodes are as they are."""
    return _cluster_resources(settings, NoNodePools(), _prices(settings))


def get_aks_resources(settings: Deployment) -> dict[str, Any]:
    """The same, in an AKS cluster whose node pools come and go with the lease."""
    from resources.billing_azure import AzureBilling
    from resources.node_pools_azure import AzureNodePools

    return _cluster_resources(settings, AzureNodePools.of(settings.cluster), AzureBilling.of(settings))


RESOURCES: dict[Target, Callable[[Deployment], dict[str, Any]]] = {
    "local": get_local_resources,
    "rehearsal": get_rehearsal_resources,
    "kubernetes": get_kubernetes_resources,
    "aks": get_aks_resources,
}


def _cluster_resources(settings: Deployment, node_pools: NodePools, billing: Billing) -> dict[str, Any]:
    from resources.cluster_kubernetes import KubernetesCluster

    data_dir, cluster = str(settings.data_dir), settings.cluster
    return {
        "labs": _labs(settings),
        "cluster": KubernetesCluster(
            node_pools=node_pools,
            data_dir=data_dir,
            target=settings.target,
            kubeconfig=str(cluster.kubeconfig) if cluster.kubeconfig else None,
            context=cluster.context,
            engine=cluster.engine,
            image=cluster.image,
            reach=cluster.reach,
            prometheus_url=cluster.prometheus_url,
            prometheus_service=cluster.prometheus_service,
            loki_url=cluster.loki_url,
            secret_store=cluster.secret_store,
            secrets_namespace=cluster.secrets_namespace,
        ),
        "load_generator": _cluster_load(settings),
        "telemetry": Telemetry(),
        **_pools(settings, node_pools),
        "pool_signals": _pool_signals(cluster),
        "billing": billing,
        "warehouse": Warehouse(data_dir=data_dir, lake_url=settings.lake_url),
    }


def _executor(settings: Deployment) -> ExecutorDefinition:
    """One process for the whole run, in a cluster too, unless the deployment wants a pod for each step.

    A process per step costs 28 s more for these five assets, and the run's process is what owns the stack's lease
    (docs/decisions/0018-one-pod-per-run.md).
    """
    if settings.executor == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    return in_process_executor


def _pools(settings: Deployment, node_pools: NodePools) -> dict[str, Any]:
    """What the sensors need to know of nodes, and to take them away; on most targets nobody can."""
    return {
        "node_pools": node_pools,
        "pool_signals": PoolSignals(),
        "gpu_switch": gpu_switch(settings),
        "budget_guard": budget_guard(settings),
    }


def _pool_signals(cluster: ClusterSettings) -> PoolSignals:
    """Of the cluster's own Prometheus: a sensor's tick is too short for a port-forward."""
    service = Service.of(cluster.prometheus_service).url if cluster.reach == "direct" else None
    return PoolSignals(
        prometheus_url=cluster.prometheus_url or service,
        provenance="modelled" if cluster.engine == "modelled" else "measured",
    )


def _prices(settings: Deployment) -> PriceSheetBilling:
    return PriceSheetBilling(
        region=settings.region,
        data_dir=str(settings.data_dir),
        lake_url=settings.lake_url,
        max_age_days=settings.price_max_age_days,
    )


def budget_guard(settings: Deployment) -> BudgetGuard:
    return BudgetGuard(mode=settings.budget_guard, budgets_file=str(settings.budgets or BUDGETS_FILE))


def gpu_switch(settings: Deployment) -> GpuSwitch:
    return GpuSwitch(
        data_dir=str(settings.data_dir), mode=settings.gpu_sensor, policy_file=str(settings.gpu_policy or POLICY_FILE)
    )


def _cluster_load(settings: Deployment) -> LoadGenerator:
    from resources.load_cluster import ClusterLoadGenerator
    from resources.load_locust import LocustLoadGenerator

    cluster = settings.cluster
    if cluster.load == "here":
        return LocustLoadGenerator()
    if settings.lake_url is None:
        raise DeploymentError(
            "LABS_LOAD=in-cluster brings its records back through the lake: set LABS_LAKE_URL to one that the pods "
            "reach too, or LABS_LOAD=here"
        )
    return ClusterLoadGenerator(
        lake_url=settings.lake_url,
        image=cluster.image,
        kubeconfig=str(cluster.kubeconfig) if cluster.kubeconfig else None,
        context=cluster.context,
        workers=cluster.load_workers,
        secret=cluster.load_secret,
        secret_store=cluster.secret_store,
        secrets_namespace=cluster.secrets_namespace,
    )


def _labs(settings: Deployment) -> Labs:
    budget = None if settings.budget_usd is None else str(settings.budget_usd)
    return Labs(
        target=settings.target, pace=settings.pace, variant=settings.variant, turns=settings.turns, budget_usd=budget
    )


def _local_cluster(settings: Deployment, data_dir: str) -> Cluster:
    engine = settings.external_engine
    if engine is None:
        from resources.cluster_local import LocalCluster

        return LocalCluster(data_dir=data_dir)
    from resources.cluster_external import ExternalEngineCluster

    return ExternalEngineCluster(
        data_dir=data_dir,
        base_url=engine.base_url,
        model=engine.model,
        prometheus_url=engine.prometheus_url,
        prometheus_selector=engine.prometheus_selector,
        sku=settings.sku,
    )
