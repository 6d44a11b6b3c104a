"""Panels on pods by their state, from kube-state-metrics, that several labs share.

Belongs here: which pod is where, and why it isn't running. Doesn't belong here: what runs inside (llm.py, gpu.py).
"""

from __future__ import annotations

from dashboards.grafana.panels import PanelBuilder, PromQL, lines, states


def phases() -> PanelBuilder:
    return lines(
        "Pods by phase",
        "A pod whose node has taken it but whose image is still on its way is Pending too.",
        PromQL("sum by (phase) (kube_pod_status_phase{$NS})", "{{phase}}"),
        unit="short",
        stacked=True,
    )


def unschedulable() -> PanelBuilder:
    return states(
        "Pods without a node",
        "Pods that the scheduler could place nowhere. Why is in the pod's events: kubectl describe pod.",
        PromQL('max by (pod) (kube_pod_status_scheduled{$NS,condition="true"})', "{{pod}}"),
        meanings={0: ("no node", "red"), 1: ("has a node", "green")},
        width=8,
    )


def waiting_reasons() -> PanelBuilder:
    return lines(
        "Why containers wait",
        "The kubelet's reason, for pods that have a node: an image that can't be pulled, a crash loop, a wrong "
        "configuration.",
        PromQL(
            "sum by (pod, reason) (kube_pod_container_status_waiting_reason{$NS}) > 0",
            "{{reason}} {{pod}}",
        ),
        unit="short",
    )


def from_creation_to_ready() -> PanelBuilder:
    return lines(
        "From pod to ready",
        "Seconds since the pod was created: until a node took it, and until it passed its readiness probe. "
        "Scheduling includes the wait for a new node.",
        PromQL("max by (pod) (kube_pod_status_scheduled_time{$NS} - kube_pod_created{$NS})", "scheduled, {{pod}}"),
        PromQL("max by (pod) (kube_pod_status_ready_time{$NS} - kube_pod_created{$NS})", "ready, {{pod}}"),
        unit="s",
    )


def ready() -> PanelBuilder:
    return states(
        "Ready",
        "Whether each pod passed its readiness probe. The first green is the end of the cold start.",
        PromQL('max by (pod) (kube_pod_status_ready{$NS,condition="true"})', "{{pod}}"),
        meanings={0: ("not ready", "orange"), 1: ("ready", "green")},
        width=8,
    )


def restarts() -> PanelBuilder:
    """The condition of L03's alert on restarts."""
    return lines(
        "Restarts",
        "Restarts of each container within ten minutes. The limit is zero: any restart asks for a reason.",
        PromQL(
            "sum by (pod, container) (increase(kube_pod_container_status_restarts_total{$NS}[10m]))",
            "{{pod}} {{container}}",
        ),
        unit="short",
        limit=0,
    )
