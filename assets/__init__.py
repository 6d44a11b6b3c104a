"""What happens to a lab: the five assets, the bill, the report and their checks, one module each.

An asset never branches on the target; where a lab runs is a matter of resources/.
No module that defines an asset or a check imports annotations from __future__: Dagster takes them as types, and refuses
the texts that they would become.
"""
