"""Builds the code location for one target: the same assets everywhere, another bundle of resources.

Belongs here: which resources a target has. Doesn't belong here: reading the environment (deployment.py), or what
the resources do (resources/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dagster import Definitions, in_process_executor, load_asset_checks_from_modules, load_assets_from_modules

from assets import checks, cost_attribution, deployed_stack, finops_sheet, load_run, metrics_snapshot, year_in_numbers
from lab_pipelines.deployment import Deployment, DeploymentError, Target
from lab_pipelines.gpu_policy import POLICY_FILE
from lab_pipelines.jobs import lab_job
from lab_pipelines.sensors import gpu_scale_to_zero, reaper, run_status
from resources.billing import PriceSheetBilling
from resources.cluster import Cluster
from resources.cluster_external import ExternalEngineCluster
from resources.cluster_local import LocalCluster
from resources.cluster_rehearsal import RehearsalCluster
from resources.gpu_switch import GpuSwitch
from resources.labs import Labs
from resources.load_locust import LocustLoadGenerator
from resources.load_rehearsal import RehearsalLoadGenerator
from resources.node_pools import NoNodePools
from resources.pool_signals import PoolSignals
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
        jobs=[lab_job],
        sensors=[*reaper.sensors, *gpu_scale_to_zero.sensors, *run_status.sensors],
        resources={**RESOURCES[target](settings), **(resource_overrides or {})},
        # One process for the whole run: a process per step costs 28 s more for these five assets, and the run's
        # process is what owns the stack's lease.
        executor=in_process_executor,
    )


def get_local_resources(settings: Deployment) -> dict[str, Any]:
    """Processes on this machine; an engine that is not ours when the deployment names one."""
    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": _local_cluster(settings, data_dir),
        "load_generator": LocustLoadGenerator(),
        "telemetry": Telemetry(),
        **_without_pools(settings),
        "billing": PriceSheetBilling(region=settings.region),
        "warehouse": Warehouse(data_dir=data_dir),
    }


def get_rehearsal_resources(settings: Deployment) -> dict[str, Any]:
    """A model of the stack in virtual time, in this process."""
    data_dir = str(settings.data_dir)
    return {
        "labs": _labs(settings),
        "cluster": RehearsalCluster(data_dir=data_dir),
        "load_generator": RehearsalLoadGenerator(),
        "telemetry": RehearsalTelemetry(),
        **_without_pools(settings),
        "billing": PriceSheetBilling(region=settings.region),
        "warehouse": Warehouse(data_dir=data_dir),
    }


RESOURCES: dict[Target, Callable[[Deployment], dict[str, Any]]] = {
    "local": get_local_resources,
    "rehearsal": get_rehearsal_resources,
}


def _without_pools(settings: Deployment) -> dict[str, Any]:
    """What the sensors need on a target whose nodes nobody can give or take."""
    return {"node_pools": NoNodePools(), "pool_signals": PoolSignals(), "gpu_switch": gpu_switch(settings)}


def gpu_switch(settings: Deployment) -> GpuSwitch:
    return GpuSwitch(
        data_dir=str(settings.data_dir), mode=settings.gpu_sensor, policy_file=str(settings.gpu_policy or POLICY_FILE)
    )


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
