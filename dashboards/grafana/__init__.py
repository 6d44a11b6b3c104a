"""Grafana's dashboards as code: one module per lab, and the JSON that Grafana reads beside it.

Belongs here: what a dashboard shows, how it is built (build.py) and how a cluster gets it (configmaps.py).
Doesn't belong here: the labs' measures, which are in the catalog and end in the warehouse. A panel is for looking.
"""
