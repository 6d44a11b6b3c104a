"""L10: which identity each pod has, and which Secrets are still there. What is inside a token no metric tells."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.panels import PanelBuilder, PromQL, number, rows
from dashboards.grafana.shell import Section, lab_dashboard


def build() -> Dashboard:
    return lab_dashboard(
        "L10",
        uid="l10-identity",
        about="Identities and Secrets of the namespace. All series are kube-state-metrics'; the proof that no "
        "credential is in a container's environment is the lab's own job.",
        namespaces_of="kube_pod_info",
        sections=[Section("Proof", _proof()), Section("Identities", _identities())],
    )


def _proof() -> list[PanelBuilder]:
    return [
        number(
            "Jobs that succeeded",
            "The probe that looks through its environment ends well only if it finds no credential.",
            PromQL("sum(kube_job_status_succeeded{$NS})"),
            unit="none",
            width=8,
        ),
        number(
            "Jobs that failed",
            "Above zero: a probe found a credential, or could not read its projected token.",
            PromQL("sum(kube_job_status_failed{$NS})"),
            unit="none",
            width=8,
            steps=(("green", None), ("red", 1.0)),
        ),
        number(
            "Opaque Secrets",
            "Secrets of no particular kind: where tokens that a person pasted usually are.",
            PromQL('count(kube_secret_type{$NS,type="Opaque"}) or vector(0)'),
            unit="none",
            width=8,
            steps=(("green", None), ("orange", 1.0)),
        ),
    ]


def _identities() -> list[PanelBuilder]:
    return [
        rows(
            "Service account of each pod",
            "A pod that runs as `default` has no identity of its own.",
            PromQL("max by (pod, service_account) (kube_pod_service_account{$NS})"),
            hide=("Value",),
        ),
        rows(
            "Service accounts bound to an Azure identity",
            "By their annotation. kube-state-metrics shows it only if told to: "
            "metricAnnotationsAllowList: [serviceaccounts=[azure.workload.identity/client-id]].",
            PromQL(
                "max by (serviceaccount, annotation_azure_workload_identity_client_id) "
                '(kube_serviceaccount_annotations{$NS,annotation_azure_workload_identity_client_id!=""})'
            ),
            hide=("Value",),
        ),
        rows(
            "Pods that get a projected token",
            "The webhook of workload identity projects a token into pods with this label alone. kube-state-metrics "
            "shows it only if told to: metricLabelsAllowlist: [pods=[azure.workload.identity/use]].",
            PromQL(
                "max by (pod, label_azure_workload_identity_use) "
                '(kube_pod_labels{$NS,label_azure_workload_identity_use="true"})'
            ),
            hide=("Value",),
        ),
        rows(
            "Secrets",
            "Every Secret of the namespace by its kind.",
            PromQL("max by (secret, type) (kube_secret_type{$NS})"),
            hide=("Value",),
        ),
    ]
