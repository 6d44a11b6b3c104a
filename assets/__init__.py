"""What happens to a lab: the five assets, the report and their checks, one module each.

An asset never branches on the target; where a lab runs is a matter of resources/.
"""
