# The lake: Parquet files that are written once. The pipeline's own role can't delete, and versions keep what somebody
# else's overwrite would lose.

resource "azurerm_storage_account" "lake" {
  name                            = var.lake_account
  location                        = azurerm_resource_group.this.location
  resource_group_name             = azurerm_resource_group.this.name
  account_tier                    = "Standard"
  account_replication_type        = var.lake_replication
  min_tls_version                 = "TLS1_2"
  allow_nested_items_to_be_public = false
  shared_access_key_enabled       = false
  tags                            = var.tags

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 30
    }

    container_delete_retention_policy {
      days = 30
    }
  }
}

resource "azurerm_storage_container" "lake" {
  name               = "lake"
  storage_account_id = azurerm_storage_account.lake.id
}

resource "azurerm_role_definition" "lake" {
  name        = "${var.name} lake"
  description = "Reads and adds blobs; deletes none."
  scope       = azurerm_resource_group.this.id

  permissions {
    actions = ["Microsoft.Storage/storageAccounts/blobServices/containers/read"]

    data_actions = [
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
      "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
    ]
  }

  assignable_scopes = [azurerm_resource_group.this.id]
}

resource "azurerm_role_assignment" "lake" {
  scope              = azurerm_storage_container.lake.id
  role_definition_id = azurerm_role_definition.lake.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.pipeline.principal_id
  principal_type     = "ServicePrincipal"
}
