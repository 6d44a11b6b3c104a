# What may differ between two installations. Everything has a default but the subscription and the lake's account.

variable "subscription_id" {
  type        = string
  description = "Subscription that pays. Also LABS' AZURE_SUBSCRIPTION_ID."
}

variable "name" {
  type        = string
  description = "Name of the resource group and of the cluster."
  default     = "lab-pipelines"
}

variable "region" {
  type        = string
  description = "Azure region; the price sheet (lab_pipelines/catalog/prices.yaml) is for eastus."
  default     = "eastus"
}

variable "kubernetes_version" {
  type        = string
  description = "Version of the control plane and of every pool's kubelet, as az aks get-versions lists them. Nothing upgrades by itself, so that two runs of a lab meet the same scheduler."
  default     = "1.35"
}

variable "system_vm_size" {
  type        = string
  description = "Machines of the system pool, which also carries Dagster and monitoring."
  default     = "Standard_D4s_v5"
}

variable "system_node_count" {
  type        = number
  description = "Nodes of the system pool. They are what the cluster costs while no lab runs."
  default     = 2

  validation {
    condition     = var.system_node_count >= 1
    error_message = "A system pool can't be empty; set system_node_count to 1 or more."
  }
}

variable "gpu_pools" {
  type = map(object({
    vm_size   = string
    spot      = optional(bool, false)
    max_count = optional(number, 2)
  }))
  description = "Node pools that labs may scale, by name (lower case letters and digits, at most 12). All begin at zero."

  default = {
    t4       = { vm_size = "Standard_NC4as_T4_v3", max_count = 4 }
    t4x4     = { vm_size = "Standard_NC64as_T4_v3", max_count = 1 }
    a100     = { vm_size = "Standard_NC24ads_A100_v4" }
    t4spot   = { vm_size = "Standard_NC4as_T4_v3", spot = true, max_count = 4 }
    t4x4spot = { vm_size = "Standard_NC64as_T4_v3", spot = true, max_count = 1 }
    a100spot = { vm_size = "Standard_NC24ads_A100_v4", spot = true }
  }

  validation {
    condition     = alltrue([for name in keys(var.gpu_pools) : can(regex("^[a-z][a-z0-9]{0,11}$", name))])
    error_message = "AKS takes pool names of at most 12 lower case letters and digits, a letter first."
  }
}

variable "pool_autoscaling" {
  type        = bool
  description = "Let AKS' own autoscaler size the GPU pools, between 0 and max_count. Off: a run sets the number of nodes that its lab wants, and gpu_scale_to_zero brings them back; AKS refuses a count while its autoscaler is on."
  default     = false
}

variable "admin_group_object_ids" {
  type        = list(string)
  description = "Entra groups that administer the cluster, beside whoever applies this. Local accounts are off."
  default     = []
}

variable "api_server_authorized_ip_ranges" {
  type        = list(string)
  description = "CIDR ranges that may reach the API server. Empty: any that has an account."
  default     = []
}

variable "lake_account" {
  type        = string
  description = "Name of the lake's storage account: 3 to 24 lower case letters and digits, unique in all of Azure."

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.lake_account))
    error_message = "A storage account's name has 3 to 24 lower case letters and digits."
  }
}

variable "lake_replication" {
  type        = string
  description = "Copies of the lake: LRS in one building, ZRS in three."
  default     = "ZRS"
}

variable "log_analytics" {
  type        = bool
  description = "Send the cluster's logs to Log Analytics. Off: at its price per GB it can cost more than the GPUs, and labs read their logs from pods or Loki."
  default     = false
}

variable "log_analytics_daily_quota_gb" {
  type        = number
  description = "Most that Log Analytics takes in a day, if it is on, in GB."
  default     = 1
}

variable "monthly_budget_usd" {
  type        = number
  description = "Alert at half, at nine tenths and at a forecast of all of it, in USD a month over cluster and nodes. Null: no alert."
  default     = null
  nullable    = true
}

variable "budget_emails" {
  type        = list(string)
  description = "Who is told. Azure wants at least one address for an alert; without one, the subscription's owners are told."
  default     = []
}

variable "tags" {
  type        = map(string)
  description = "Tags of everything, for the bill."
  default     = { project = "lab-pipelines" }
}
