"""What is in an agent pool of the double, and what Azure refuses to make of one.

Doesn't belong here: requests and operations (azure_arm.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]

SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
RESOURCE_GROUP = "labs"
CLUSTER = "labs-aks"
DATA = Path(__file__).resolve().parents[1] / "data" / "azure"
READ_ONLY = ("eTag", "provisioningState", "currentOrchestratorVersion")
"""What Azure alone sets. The rest is what the last PUT said."""
IMMUTABLE = ("vmSize", "osType", "mode", "maxPods", "vnetSubnetID", "scaleSetPriority")

_VCPUS = re.compile(r"^Standard_[A-Z]+(\d+)")


class RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def pool_body(name: str, *, spot: bool = False, **properties: Any) -> Json:
    """An agent pool as Azure answers for it, of the recorded examples; `properties` by Azure's names."""
    example = json.loads((DATA / "AgentPoolsGet.json").read_text(encoding="utf-8"))["responses"]["200"]["body"]
    base = {**example["properties"], "mode": "User", "vmSize": "Standard_NC4as_T4_v3", "count": 0}
    if spot:
        create = json.loads((DATA / "AgentPoolsCreate_Spot.json").read_text(encoding="utf-8"))
        answered = create["responses"]["200"]["body"]["properties"]
        base |= {key: answered[key] for key in ("scaleSetPriority", "scaleSetEvictionPolicy", "spotMaxPrice")}
    base |= {"tags": {"lab-pipelines": "managed"}, "eTag": f"{name}-1", **properties}
    path = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{RESOURCE_GROUP}/providers/Microsoft.ContainerService"
    return {
        "id": f"{path}/managedClusters/{CLUSTER}/agentPools/{name}",
        "name": name,
        "type": "Microsoft.ContainerService/managedClusters/agentPools",
        "properties": {key: value for key, value in base.items() if value is not None},
    }


def check_put(name: str, before: Json, sent: Json, *, vcpus_left: int | None) -> None:
    """Raise `RefusedError` for what no pool can become. `vcpus_left`: quota beyond what runs; None: enough."""
    if sent.get("count") is None:
        raise RefusedError(
            400, "InvalidParameter", "Required parameter properties.count is missing (null)."
        )  # fmt: skip
    for one in IMMUTABLE:
        if sent.get(one) != before.get(one):
            raise RefusedError(400, "PropertyChangeNotAllowed", f"Changing property 'properties.{one}' is not allowed.")
    if sent.get("enableAutoScaling") and sent["count"] != before["count"]:
        raise RefusedError(
            400, "BadRequest",
            "Cannot manually scale and enable cluster autoscaler in the same update operation on VMSS Agentpool "
            f"'{name}'.",
        )  # fmt: skip
    if not sent.get("enableAutoScaling") and ("minCount" in sent or "maxCount" in sent):
        raise RefusedError(400, "InvalidParameter", "minCount and maxCount need enableAutoScaling to be true.")
    if sent["count"] == 0 and sent.get("mode") == "System":
        raise RefusedError(400, "InvalidParameter", f"System node pool {name} must have at least one node.")
    vcpus = _VCPUS.match(sent["vmSize"])
    needed = (sent["count"] - before["count"]) * int(vcpus[1] if vcpus else 1)
    if vcpus_left is not None and needed > vcpus_left:
        raise RefusedError(
            400, "ErrCode_InsufficientVCPUQuota",
            f"Insufficient vcpu quota requested {needed}, remaining {vcpus_left} for family "
            "standardNCASv3_T4Family for region eastus.",
        )  # fmt: skip
