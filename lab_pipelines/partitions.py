"""The one partition set of the project: a partition is a lab.

Static, because an asset of another partition type could not share a run with these, and dynamic partitions are
missing on a fresh instance. In the year's order, which is also the order in which labs build on each other.
"""

from dagster import StaticPartitionsDefinition

from lab_pipelines.catalog.loader import load_catalog

lab_partitions = StaticPartitionsDefinition(list(load_catalog().ids))
