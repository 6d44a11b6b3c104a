"""The code location of the lab pipeline: definitions, catalog, engine model, report.

What happens to a lab is in `assets/`, where it happens in `resources/`, which labs there are in
`lab_pipelines/catalog/`, and what the rows say in `warehouse/` (SQL).
"""
