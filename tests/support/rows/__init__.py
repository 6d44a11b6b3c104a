"""Realistic rows of every table, for tests that need a warehouse with something in it.

`lab_run` (runs.py) is a whole small run of L06 whose tables agree with one another, `variants_run` one of several
variants. The other modules have builders of one row each, a family of tables per module; they take any column as a
keyword. Numbers resemble Phi-3-mini on one T4; they are no measurement.

Doesn't belong here: the warehouse that they are published into (warehouses.py).
"""
