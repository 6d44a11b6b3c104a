"""The sensors: what looks after stacks and node pools while nobody does.

One sensor, or one kind, per module; each module's `sensors` is what the code location takes. What a sensor decides is
pure and lives elsewhere; here it reads, asks and acts.
"""
