"""L07, L08 and L10, step by step from the spec to the judgement, on the double.

What the scheduler and the containers say is data here: the words of a real control plane (Kubernetes 1.36.2: API
server, scheduler and controllers) for the same files, with one node with a T4 and its taint, and one without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab_pipelines.catalog.loader import load_catalog
from lab_pipelines.catalog.steps import ApplyStep
from lab_pipelines.deployment import REPO_ROOT
from resources import kube_api, manifests
from resources.manifests import Judgement
from tests.support.kube.statuses import ended, unschedulable
from tests.support.kube_api import KubeApi

IDS = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_KEY_VAULT": "vault"}

NO_VICTIM = (
    "no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)
AFFINITY = unschedulable(f"0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. {NO_VICTIM}")
TAINT = unschedulable(
    "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). "
    f"{NO_VICTIM}"
)
SHARED_NODE = unschedulable(
    "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
    f"1 node(s) didn't match pod anti-affinity rules. {NO_VICTIM}"
)
NO_GPU = unschedulable(f"0/2 nodes are available: 2 Insufficient nvidia.com/gpu. {NO_VICTIM}")
NO_CREDENTIAL = "no credential among 9 environment variables"
IDENTITY = f"{NO_CREDENTIAL}; identity token: system:serviceaccount:lab-10:weights-reader, 3599 s left"

DECISIONS: Mapping[str, Sequence[dict[str, Any]]] = {
    "second-gpu": [NO_GPU],
    "wrong-affinity": [AFFINITY],
    "no-toleration": [TAINT],
    "affinity-forgives-no-taint": [TAINT],
    "selector-against-affinity": [AFFINITY],
    "other-per-node": [SHARED_NODE],
    "token-in-environment": [ended(1, "credentials in the environment: HF_TOKEN")],
    "account-without-label": [
        ended(1, f"{NO_CREDENTIAL}, but AZURE_FEDERATED_TOKEN_FILE is not set: nobody gave this pod an identity")
    ],
    "projected-by-hand": [ended(0, IDENTITY)],
    "token-in-volume": [ended(0, f"{IDENTITY}; Hugging Face token: a file, /mnt/huggingface/huggingface-token")],
}


def walk(
    lab: str, folder: Path, decisions: Mapping[str, Sequence[dict[str, Any]]], *, within_s: float = 10.0
) -> dict[str, Judgement]:
    """The judgement of every `apply` step of the lab."""
    spec = load_catalog().spec(lab)
    with KubeApi(decisions=decisions) as double, kube_api.connect(double.kubeconfig(folder)) as api_client:
        namespace = double.make_namespace(spec.namespace)
        labels = manifests.labels_of(spec, "run-1")
        steps = [step for step in spec.steps if isinstance(step, ApplyStep)]
        judged = {
            step.name: manifests.judge(
                step,
                manifests.carry_out(
                    api_client,
                    step.model_copy(update={"within_s": within_s}),
                    root=REPO_ROOT,
                    environ=IDS,
                    namespace=namespace,
                    labels=labels,
                    progress=lambda line: None,
                ),
            )
            for step in steps
        }
        everything = [one for step in steps for one in manifests.read_manifests(REPO_ROOT / step.manifests, IDS)]
        deadline = kube_api.Deadline.within(10.0)
        manifests.delete(api_client, everything, namespace=namespace, labels=labels, deadline=deadline)
        assert not [key for key in double.stored() if key[1] == namespace]
    return judged


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("lab", ["L07", "L08", "L10"])
def test_every_step_ends_as_its_spec_expects(lab: str, tmp_path: Path) -> None:
    judged = walk(lab, tmp_path, DECISIONS)
    assert judged and all(one.ok for one in judged.values()), judged


def test_a_scheduler_that_decides_otherwise_is_noticed(tmp_path: Path) -> None:
    # A second GPU turns up, and a taint that was forgotten lets a pod in.
    judged = walk("L07", tmp_path, {})
    assert [name for name, one in judged.items() if not one.ok] == ["second-gpu"]
    judged = walk("L08", tmp_path, {**DECISIONS, "no-toleration": [AFFINITY]}, within_s=1.5)
    assert [name for name, one in judged.items() if not one.ok] == ["no-toleration"]
