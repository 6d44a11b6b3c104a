"""FOCUS, the FinOps Foundation's format of cost and usage: its rules as data, and a check of rows against them.

Belongs here: what FOCUS 1.2 asks of any data set (columns-1.2.yaml), and whether one keeps to it.
Doesn't belong here: which of our numbers is which column (warehouse/views/46_focus_cost_and_usage.sql), or writing a
file (lab_pipelines/cli/cost_export.py).
"""
