"""The rehearsal target's model of a stack in virtual time.

Belongs here: the world (clock, engine, series), the replay of a load, the scheduler's view of nodes.
Doesn't belong here: the engine itself (lab_pipelines/engine/), or what an asset asks of a target
(resources/*_rehearsal.py).
"""
