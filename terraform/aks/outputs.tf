# What to set afterwards. No secret is among them.

output "labs_environment" {
  description = "Variables for a shell, or for `env` of deploy/dagster/values.yaml: terraform output -raw labs_environment"
  value       = <<-SHELL
    export LABS_TARGET=aks
    export AZURE_SUBSCRIPTION_ID=${var.subscription_id}
    export LABS_AKS_RESOURCE_GROUP=${azurerm_resource_group.this.name}
    export LABS_AKS_CLUSTER=${azurerm_kubernetes_cluster.this.name}
    export LABS_AKS_NODE_RESOURCE_GROUP=${azurerm_kubernetes_cluster.this.node_resource_group}
    export LABS_REGION=${azurerm_resource_group.this.location}
    export LABS_LAKE_URL=abfss://${azurerm_storage_container.lake.name}@${azurerm_storage_account.lake.primary_dfs_host}/lake
  SHELL
}

output "identity_client_id" {
  description = "For the annotation azure.workload.identity/client-id of the service accounts lab-runs and lab-sensors."
  value       = azurerm_user_assigned_identity.pipeline.client_id
}

output "kubeconfig_command" {
  description = "Adds the cluster to your kubeconfig; signing in needs kubelogin."
  value       = "az aks get-credentials --subscription ${var.subscription_id} --resource-group ${azurerm_resource_group.this.name} --name ${azurerm_kubernetes_cluster.this.name}"
}
