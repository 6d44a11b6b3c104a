"""L08: where pods land, which stay without a node, and whether the GPU nodes' taint keeps the others away."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import pods
from dashboards.grafana.panels import PanelBuilder, PromQL, number, rows
from dashboards.grafana.shell import Section, lab_dashboard

_GPU_NODES = '(kube_node_status_allocatable{resource="nvidia_com_gpu"} > 0)'


def build() -> Dashboard:
    return lab_dashboard(
        "L08",
        uid="l08-placement",
        about="Affinity, taints and their effect on the placement of pods. All series are kube-state-metrics'.",
        namespaces_of="kube_pod_info",
        sections=[
            Section("Pods", [pods.phases(), pods.unschedulable(), pods.from_creation_to_ready()]),
            Section("Nodes", _nodes()),
        ],
    )


def _nodes() -> list[PanelBuilder]:
    return [
        number(
            "Strangers on GPU nodes",
            "Pods of any namespace on a GPU node that ask for no GPU; those of a DaemonSet belong there. Above zero "
            "the taint has a hole.",
            PromQL(
                'count((kube_pod_info{created_by_kind!="DaemonSet"} * on (node) group_left () '
                f"max by (node) {_GPU_NODES}) unless on (namespace, pod) "
                'kube_pod_container_resource_requests{resource="nvidia_com_gpu"}) or vector(0)'
            ),
            unit="none",
            width=8,
            steps=(("green", None), ("red", 1.0)),
        ),
        number(
            "GPU nodes",
            "Nodes whose device plugin offers a GPU.",
            PromQL(f"count(max by (node) {_GPU_NODES})"),
            unit="none",
            width=8,
        ),
        number(
            "Pods without a node",
            "Of this namespace, at this moment.",
            PromQL('count(kube_pod_status_scheduled{$NS,condition="false"} == 1) or vector(0)'),
            unit="none",
            width=8,
            steps=(("green", None), ("orange", 1.0)),
        ),
        rows(
            "Where the pods are",
            "One row per pod of this namespace; one without a node has none here.",
            PromQL("max by (pod, node, created_by_kind) (kube_pod_info{$NS})"),
            hide=("Value",),
        ),
        rows(
            "Taints",
            "Of every node of the cluster. A pod lands on a tainted node only with a toleration for each of them.",
            PromQL("max by (node, key, value, effect) (kube_node_spec_taint{})"),
            hide=("Value",),
        ),
        rows(
            "Tolerations",
            "Of this namespace's pods. A toleration allows a node; it asks for none.",
            PromQL("max by (pod, key, operator, value, effect) (kube_pod_tolerations{$NS})"),
            hide=("Value",),
            width=24,
        ),
    ]
