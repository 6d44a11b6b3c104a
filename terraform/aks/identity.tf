# Who the pipeline is in Azure, and the least that it may do: read and write agent pools of this cluster, read what they
# cost, add files to the lake. It can delete neither a pool nor a file.

data "azurerm_client_config" "current" {}

# Whoever applies this must be able to go on with kubectl.
resource "azurerm_role_assignment" "administrator" {
  scope                = azurerm_kubernetes_cluster.this.id
  role_definition_name = "Azure Kubernetes Service RBAC Cluster Admin"
  principal_id         = data.azurerm_client_config.current.object_id
}

resource "azurerm_user_assigned_identity" "pipeline" {
  name                = "${var.name}-pipeline"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = var.tags
}

# Runs scale pools up, sensors scale them down (deploy/rbac/accounts.yaml).
resource "azurerm_federated_identity_credential" "pipeline" {
  for_each = toset(["lab-runs", "lab-sensors"])

  name                      = each.key
  user_assigned_identity_id = azurerm_user_assigned_identity.pipeline.id
  audience                  = ["api://AzureADTokenExchange"]
  issuer                    = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject                   = "system:serviceaccount:dagster:${each.key}"
}

resource "azurerm_role_definition" "pools" {
  name        = "${var.name} node pools"
  description = "Sees and sizes the node pools of a cluster; makes and deletes none."
  scope       = azurerm_resource_group.this.id

  permissions {
    actions = [
      "Microsoft.ContainerService/managedClusters/read",
      "Microsoft.ContainerService/managedClusters/agentPools/read",
      "Microsoft.ContainerService/managedClusters/agentPools/write",
    ]
  }

  assignable_scopes = [azurerm_resource_group.this.id]
}

resource "azurerm_role_assignment" "pools" {
  scope              = azurerm_kubernetes_cluster.this.id
  role_definition_id = azurerm_role_definition.pools.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type     = "ServicePrincipal"
}

# A change of a pool is followed at an address of the subscription, not of the cluster.
resource "azurerm_role_definition" "operations" {
  name        = "${var.name} operations"
  description = "Follows long-running operations of AKS."
  scope       = "/subscriptions/${var.subscription_id}"

  permissions {
    actions = [
      "Microsoft.ContainerService/locations/operationresults/read",
      "Microsoft.ContainerService/locations/operations/read",
    ]
  }

  assignable_scopes = ["/subscriptions/${var.subscription_id}"]
}

resource "azurerm_role_assignment" "operations" {
  scope              = "/subscriptions/${var.subscription_id}"
  role_definition_id = azurerm_role_definition.operations.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type     = "ServicePrincipal"
}

# The machines of a pool are billed in the group that AKS made for them.
resource "azurerm_role_assignment" "costs" {
  scope                = azurerm_kubernetes_cluster.this.node_resource_group_id
  role_definition_name = "Cost Management Reader"
  principal_id         = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type       = "ServicePrincipal"
}
