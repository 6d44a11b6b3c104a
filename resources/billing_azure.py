"""Prices from the sheet, and the bill from Azure Cost Management.

Doesn't belong here: the question to Azure (cost_query.py), what becomes of its answer (bill_ledger.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from lab_pipelines.bill import Answer, Window
from lab_pipelines.deployment import ClusterSettings, Deployment, DeploymentError
from resources import azure_session
from resources.azure_session import RETRY_S
from resources.billing import PriceSheetBilling
from resources.call_limit import CallLimit
from resources.cluster import Progress
from resources.cost_query import AZURE_LIMITS, CostQueries

if TYPE_CHECKING:
    from azure.mgmt.costmanagement import CostManagementClient


class AzureBilling(PriceSheetBilling):
    """The bill of one resource group: that in which AKS keeps the cluster's machines."""

    gives_bill: ClassVar[bool] = True

    subscription_id: str
    node_resource_group: str
    base_url: str | None = None
    """Resource Manager's address; None: that of the SDK's cloud."""
    retry_s: float = RETRY_S

    @classmethod
    def of(cls, settings: Deployment) -> AzureBilling:
        """The bill of the cluster that the settings name. Raises `DeploymentError` that names what isn't set."""
        cluster = settings.cluster
        if not cluster.subscription_id:
            raise DeploymentError(
                "--target aks needs to know whose bill it is: set AZURE_SUBSCRIPTION_ID (`az account list --output "
                "table`; docs/aks.md)"
            )
        return cls(
            region=settings.region,
            subscription_id=cluster.subscription_id,
            node_resource_group=node_resource_group(cluster, settings.region),
            data_dir=str(settings.data_dir),
            lake_url=settings.lake_url,
            max_age_days=settings.price_max_age_days,
        )

    @property
    def bill_scope(self) -> str:
        return f"subscriptions/{self.subscription_id}/resourceGroups/{self.node_resource_group}"

    def connect(self) -> CostManagementClient:
        """A new client. A method, so that a subclass can sign in in another way."""
        return azure_session.cost_management(base_url=self.base_url)

    @property
    def call_limit(self) -> CallLimit:
        """Below the data folder, every process that asks Azure counts its calls in one file."""
        assert self.data_dir is not None
        return CallLimit(Path(self.data_dir) / "state" / "azure_cost_management.json", AZURE_LIMITS)

    def ask_bill(self, window: Window, *, within_s: float, progress: Progress) -> Answer:
        limit = self.call_limit
        queries = CostQueries(self.connect(), self.bill_scope, limit, retry_s=self.retry_s)
        return queries.ask(window, until=limit.clock() + within_s, progress=progress)


def node_resource_group(cluster: ClusterSettings, region: str) -> str:
    """Where AKS keeps the cluster's machines: what the settings say, or the name that AKS makes up itself."""
    return cluster.node_resource_group or f"MC_{cluster.resource_group}_{cluster.aks_cluster}_{region}"
