# The cluster and its system pool. Doesn't belong here: pools that labs scale (pools.tf), who may do what (identity.tf).

resource "azurerm_resource_group" "this" {
  name     = var.name
  location = var.region
  tags     = var.tags
}

resource "azurerm_kubernetes_cluster" "this" {
  name                = var.name
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  dns_prefix          = var.name
  kubernetes_version  = var.kubernetes_version
  tags                = var.tags

  # Whoever has kubectl's certificate of a local account is an administrator for ever, and nobody sees who it was.
  local_account_disabled = true

  # Pods get their right to Azure by a token of their service account, so there is no secret to store.
  oidc_issuer_enabled       = true
  workload_identity_enabled = true

  default_node_pool {
    name                 = "system"
    vm_size              = var.system_vm_size
    node_count           = var.system_node_count
    orchestrator_version = var.kubernetes_version
    tags                 = var.tags

    upgrade_settings {
      max_surge = "1"
    }
  }

  identity {
    type = "SystemAssigned"
  }

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled     = true
    admin_group_object_ids = var.admin_group_object_ids
  }

  # Overlay: a node takes one address of the network however many pods it has. Cilium enforces NetworkPolicy, without
  # which a lab's default-deny would be words.
  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
  }

  # L10 mounts a vault's secret through it.
  key_vault_secrets_provider {
    secret_rotation_enabled = true
  }

  dynamic "api_server_access_profile" {
    for_each = length(var.api_server_authorized_ip_ranges) > 0 ? [var.api_server_authorized_ip_ranges] : []

    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  dynamic "oms_agent" {
    for_each = azurerm_log_analytics_workspace.this

    content {
      log_analytics_workspace_id      = oms_agent.value.id
      msi_auth_for_monitoring_enabled = true
    }
  }
}

resource "azurerm_log_analytics_workspace" "this" {
  count = var.log_analytics ? 1 : 0

  name                = var.name
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  retention_in_days   = 30
  daily_quota_gb      = var.log_analytics_daily_quota_gb
  tags                = var.tags
}
