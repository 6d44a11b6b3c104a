"""L07: what the namespace may have, what it has asked for, and which pod got it."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import pods
from dashboards.grafana.panels import PanelBuilder, PromQL, lines, number, rows
from dashboards.grafana.shell import Section, lab_dashboard

QUOTA_GPUS = 2
"""GPUs that the lab's ResourceQuota allows."""


def build() -> Dashboard:
    return lab_dashboard(
        "L07",
        uid="l07-scheduler-and-quota",
        about="GPU requests as the scheduler and the quota see them. All series are kube-state-metrics'.",
        namespaces_of="kube_pod_info",
        sections=[
            Section("Quota", _quota()),
            Section("Requests", _requests()),
            Section("Pods", [pods.phases(), pods.unschedulable(), pods.waiting_reasons()]),
        ],
    )


def _quota() -> list[PanelBuilder]:
    return [
        lines(
            "GPUs of the quota",
            "Asked for, and allowed. A pod that would pass the limit is refused at once, so the lines touch but never "
            "cross; the refused pod exists nowhere.",
            PromQL('sum by (type) (kube_resourcequota{$NS,resource=~"(requests[.])?nvidia[.]com/gpu"})', "{{type}}"),
            unit="short",
            limit=QUOTA_GPUS,
        ),
        lines(
            "Memory of the quota",
            "The same for memory requests and limits.",
            PromQL(
                'sum by (resource, type) (kube_resourcequota{$NS,resource=~"((requests|limits)[.])?memory"})',
                "{{resource}} {{type}}",
            ),
            unit="bytes",
        ),
        lines(
            "Share of the quota in use",
            "For every resource that a quota of this namespace names.",
            PromQL(
                'max by (resource) (kube_resourcequota{$NS,type="used"} / ignoring (type) '
                '(kube_resourcequota{$NS,type="hard"} > 0))',
                "{{resource}}",
            ),
            unit="percentunit",
            maximum=1,
        ),
        rows(
            "Quota",
            "Every line of the namespace's quotas.",
            PromQL("max by (resourcequota, resource, type) (kube_resourcequota{$NS})"),
        ),
        rows(
            "LimitRange",
            "What a container gets that asks for nothing, and the least and most it may ask for.",
            PromQL("max by (limitrange, type, resource, constraint) (kube_limitrange{$NS})"),
        ),
    ]


def _requests() -> list[PanelBuilder]:
    return [
        lines(
            "GPUs asked for by pod",
            "Requests and limits. For GPUs the API server takes no request that differs from its limit.",
            PromQL(
                'sum by (pod) (kube_pod_container_resource_requests{$NS,resource="nvidia_com_gpu"})', "request {{pod}}"
            ),
            PromQL('sum by (pod) (kube_pod_container_resource_limits{$NS,resource="nvidia_com_gpu"})', "limit {{pod}}"),
            unit="short",
            width=16,
        ),
        number(
            "GPUs of the cluster",
            "What the device plugin offers on all nodes.",
            PromQL('sum(kube_node_status_allocatable{resource="nvidia_com_gpu"})'),
            unit="none",
        ),
        number(
            "GPUs asked for in the cluster",
            "By pods that have a node, in any namespace. The scheduler counts requests, never use.",
            PromQL('sum(kube_pod_container_resource_requests{resource="nvidia_com_gpu",node!=""})'),
            unit="none",
        ),
    ]
