"""Builds the code location for one target: the same assets everywhere, another bundle of resources.

Belongs here: which resources a target has. Doesn't belong here: reading the environment (deployment.py), or what
the resources do (resources/).
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

from assets import checks, cost_attribution, deployed_stack, finops_sheet, load_run, metrics_snapshot, year_in_numbers
from lab_pipelines.deployment import Deployment, DeploymentError, Target
from resources.billing import PriceSheetBilling
from resources.cluster import Cluster
from resources.cluster_external import ExternalEngineCluster
from resources.cluster_local import LocalCluster
from resources.cluster_rehearsal import RehearsalCluster
from resources.labs import Labs
from resources.load_locust import LocustLoadGenerator
from resources.load_rehearsal import RehearsalLoadGenerator
from resources.telemetry import Telemetry
from resources.telemetry_rehearsal import RehearsalTelemetry
from resources.warehouse import Warehouse


def build_defs(
    *, target: Target, deployment: Deployment | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> Definitions:
    """All assets and checks with the resources of `target`; `resource_overrides` replaces some of them, for tests.

    Raises `DeploymentError` for a target that has no resources yet.
    """
    settings = replace(deployment or Deployment(), target=target)
    if target not in RESOURCES:
        raise DeploymentError(f"LABS_TARGET={target} can't run labs yet; set LABS_TARGET to: {', '.join(RESOURCES)}")
    return Definitions(
        assets=load_assets_from_modules(
            [deployed_stack, load_run, metrics_snapshot, cost_attribution, finops_sheet, year_in_numbers]
        ),
        asset_checks=load_asset_checks_from_modules([checks]),
        resources={**RESOURCES[target](settings), **(resource_overrides or {})},
        executor=_executor(settings),
    )


def get_local_resources(settings: Deployment) -> dict[str, Any]:
    """Processes on this machine; an engine that is not ours when the deployment names one."""
    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": _local_cluster(settings, data_dir),
        "load_generator": LocustLoadGenerator(),
        "telemetry": Telemetry(),
        "billing": PriceSheetBilling(region=settings.region),
        "warehouse": Warehouse(data_dir=data_dir, lake_url=settings.lake_url),
    }


def get_rehearsal_resources(settings: Deployment) -> dict[str, Any]:
    """A model of the stack in virtual time, in this process."""
    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": RehearsalCluster(data_dir=data_dir),
        "load_generator": RehearsalLoadGenerator(),
        "telemetry": RehearsalTelemetry(),
        "billing": PriceSheetBilling(region=settings.region),
        "warehouse": Warehouse(data_dir=data_dir, lake_url=settings.lake_url),
    }


RESOURCES: dict[Target, Callable[[Deployment], dict[str, Any]]] = {
    "local": get_local_resources,
    "rehearsal": get_rehearsal_resources,
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


def _labs(settings: Deployment) -> Labs:
    budget = None if settings.budget_usd is None else str(settings.budget_usd)
    return Labs(target=settings.target, pace=settings.pace, variant=settings.variant, budget_usd=budget)


def _local_cluster(settings: Deployment, data_dir: str) -> Cluster:
    engine = settings.external_engine
    if engine is None:
        return LocalCluster(data_dir=data_dir)
    return ExternalEngineCluster(
        data_dir=data_dir,
        base_url=engine.base_url,
        model=engine.model,
        prometheus_url=engine.prometheus_url,
        prometheus_selector=engine.prometheus_selector,
        sku=settings.sku,
    )
