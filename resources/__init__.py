"""Where a lab happens: clusters, load generators, telemetry, billing and the warehouse, one module each.

Doesn't belong here: what happens to a lab (assets/) or which labs there are (lab_pipelines/catalog/).
"""
