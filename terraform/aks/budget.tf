# An alert, not a limit: Azure stops nothing, and tells hours late. What stops things are leases and the reaper.

locals {
  budget_scopes = var.monthly_budget_usd == null ? {} : {
    cluster = azurerm_resource_group.this.id
    nodes   = azurerm_kubernetes_cluster.this.node_resource_group_id
  }
}

resource "azurerm_consumption_budget_resource_group" "this" {
  for_each = local.budget_scopes

  name              = "${var.name}-${each.key}"
  resource_group_id = each.value
  amount            = var.monthly_budget_usd
  time_grain        = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-'01T00:00:00Z'", timestamp())
  }

  dynamic "notification" {
    for_each = { half = [50, "Actual"], most = [90, "Actual"], forecast = [100, "Forecasted"] }

    content {
      operator       = "GreaterThanOrEqualTo"
      threshold      = notification.value[0]
      threshold_type = notification.value[1]
      contact_emails = var.budget_emails
      contact_roles  = ["Owner"]
    }
  }

  lifecycle {
    # It began in the month in which it was made.
    ignore_changes = [time_period]
  }
}
