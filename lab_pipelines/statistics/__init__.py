"""From samples to statements: intervals and verdicts, as pure functions on numbers.

Doesn't belong here: reading rows (assets/), or what a lab claims (the catalog).
"""
