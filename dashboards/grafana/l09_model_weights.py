"""L09: how long the weights take to load, and what the disk or share below them does meanwhile."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana import pods
from dashboards.grafana.panels import LogQL, PanelBuilder, PromQL, lines, log_lines, rows
from dashboards.grafana.shell import Section, lab_dashboard


def build() -> Dashboard:
    return lab_dashboard(
        "L09",
        uid="l09-model-weights",
        about="Cold starts with weights on emptyDir, on an Azure Disk and on Azure Files, and the storage below them.",
        namespaces_of="kube_pod_info",
        logs=True,
        sections=[
            Section("Loading", _loading()),
            Section("Storage as the pods see it", _pods_storage()),
            Section("Storage as the nodes see it", _nodes_storage()),
        ],
    )


def _loading() -> list[PanelBuilder]:
    return [
        lines(
            "Loading the weights",
            "Seconds, as vLLM's own line says it when the weights are on the GPU. Fresh against cached is the lab.",
            LogQL(
                'max by (pod) (max_over_time({$NS} |= "Model loading took" '
                '| regexp "and (?P<load_s>[0-9.]+) seconds" | unwrap load_s | __error__="" [$__auto]))',
                "{{pod}}",
            ),
            unit="s",
        ),
        lines(
            "Starting the engine",
            "Seconds after the weights: profiling, KV cache, warm-up. Storage has no part in it.",
            LogQL(
                'max by (pod) (max_over_time({$NS} |= "init engine" '
                '| regexp "took (?P<init_s>[0-9.]+) s" | unwrap init_s | __error__="" [$__auto]))',
                "{{pod}}",
            ),
            unit="s",
        ),
        pods.from_creation_to_ready(),
        log_lines(
            "Lines on loading",
            "What vLLM says of the download, the weights and the engine.",
            LogQL('{$NS} |~ "Model loading took|Loading weights took|init engine|Time spent downloading weights"'),
        ),
    ]


def _pods_storage() -> list[PanelBuilder]:
    return [
        lines(
            "Read from block devices",
            "Bytes per second by container: emptyDir and Azure Disk. A share is read over the network and isn't here, "
            "and what the page cache still has is read from nowhere.",
            PromQL(
                'sum by (pod) (rate(container_fs_reads_bytes_total{$NS,container!=""}[$__rate_interval]))', "{{pod}}"
            ),
            unit="Bps",
        ),
        lines(
            "Reads from block devices",
            "Operations per second, the IOPS that the disk's tier limits.",
            PromQL('sum by (pod) (rate(container_fs_reads_total{$NS,container!=""}[$__rate_interval]))', "{{pod}}"),
            unit="iops",
        ),
        lines(
            "Received by the pods' network",
            "A first download, or anything else that a pod fetches itself.",
            PromQL("sum by (pod) (rate(container_network_receive_bytes_total{$NS}[$__rate_interval]))", "{{pod}}"),
            unit="Bps",
        ),
        lines(
            "Page cache",
            "Weights that the node's memory still holds. A second start from here says nothing about the disk.",
            PromQL('sum by (pod) (container_memory_cache{$NS,container!=""})', "{{pod}}"),
            unit="bytes",
        ),
        lines(
            "Volumes in use",
            "Bytes on each claimed volume. Two replicas that share one show it once.",
            PromQL(
                "max by (persistentvolumeclaim) (kubelet_volume_stats_used_bytes{$NS})", "{{persistentvolumeclaim}}"
            ),
            unit="bytes",
        ),
        rows(
            "Claims",
            "Storage class and access mode of every claim: ReadWriteMany is what two nodes can mount.",
            PromQL(
                "max by (persistentvolumeclaim, access_mode, storageclass) (kube_persistentvolumeclaim_access_mode{$NS}"
                " * on (namespace, persistentvolumeclaim) group_left (storageclass) "
                "kube_persistentvolumeclaim_info{$NS})"
            ),
            hide=("Value",),
            width=8,
        ),
    ]


def _nodes_storage() -> list[PanelBuilder]:
    by_device = "{{instance}} {{device}}"
    return [
        lines(
            "Disk throughput",
            "Read by each node's devices, whoever asked. A data disk has a device of its own.",
            PromQL("sum by (instance, device) (rate(node_disk_read_bytes_total{}[$__rate_interval]))", by_device),
            unit="Bps",
        ),
        lines(
            "Disk IOPS",
            "Reads completed per second, to hold against the disk tier's limit.",
            PromQL("sum by (instance, device) (rate(node_disk_reads_completed_total{}[$__rate_interval]))", by_device),
            unit="iops",
        ),
        lines(
            "Received by the nodes",
            "An Azure Files share is mounted by the node, so its traffic is the node's and no pod's.",
            PromQL(
                'sum by (instance) (rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval]))',
                "{{instance}}",
            ),
            unit="Bps",
        ),
    ]
