# GPU pools, all at zero. From then on their number of nodes and their tags belong to the pipeline: a lab's run takes a
# pool from zero to what its spec wants and writes its lease into the tags, the sensor gpu_scale_to_zero brings it back
# (docs/deploy.md). The tag lab-pipelines=managed is the pipeline's permission; a pool without it is never touched.

locals {
  spot_taint = "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"
}

resource "azurerm_kubernetes_cluster_node_pool" "gpu" {
  for_each = var.gpu_pools

  name                  = each.key
  kubernetes_cluster_id = azurerm_kubernetes_cluster.this.id
  vm_size               = each.value.vm_size
  mode                  = "User"
  orchestrator_version  = var.kubernetes_version
  os_disk_size_gb       = 128

  node_count           = 0
  auto_scaling_enabled = var.pool_autoscaling
  min_count            = var.pool_autoscaling ? 0 : null
  max_count            = var.pool_autoscaling ? each.value.max_count : null

  priority        = each.value.spot ? "Spot" : "Regular"
  eviction_policy = each.value.spot ? "Delete" : null
  spot_max_price  = each.value.spot ? -1 : null

  # A pod without a toleration for this taint would keep a GPU node from ever being empty.
  node_taints = each.value.spot ? ["sku=gpu:NoSchedule", local.spot_taint] : ["sku=gpu:NoSchedule"]

  node_labels = merge(
    { "sku" = "gpu" },
    each.value.spot ? { "kubernetes.azure.com/scalesetpriority" = "spot" } : {},
  )

  tags = merge(var.tags, { "lab-pipelines" = "managed" })

  # Spot pools take neither of its settings.
  dynamic "upgrade_settings" {
    for_each = each.value.spot ? [] : ["1"]

    content {
      max_surge = upgrade_settings.value
    }
  }

  lifecycle {
    # An apply while a lab runs would take its nodes away, and its lease.
    ignore_changes = [node_count, tags]
  }
}
