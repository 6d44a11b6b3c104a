# Which Terraform and which provider this is written for. Doesn't belong here: anything of Azure.

terraform {
  required_version = ">= 1.9"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.81"
    }
  }
}

provider "azurerm" {
  subscription_id = var.subscription_id

  # The lake's account has no keys to fall back on.
  storage_use_azuread = true

  features {}
}
