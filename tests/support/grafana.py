"""A dashboard's questions as Grafana would send them, for tests that ask a Prometheus or check what is asked.

Doesn't belong here: the dashboards (dashboards/grafana).
"""

from __future__ import annotations

VARIABLES = {
    **{"$__rate_interval": "1m", "$__auto": "1m", "$model": ".*", "$pod": ".*"},
    **{"$ttft_le": "2.5", "$tpot_le": "0.075", "$usd_per_node_hour": "0.526", "$share_of_node": "1"},
}
"""What Grafana fills in, `$namespace` aside."""


def filled(expression: str, namespace: str) -> str:
    """The expression with its variables filled in."""
    for variable, value in {**VARIABLES, "$namespace": namespace}.items():
        expression = expression.replace(variable, value)
    return expression
