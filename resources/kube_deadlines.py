"""How long each thing that a target in a cluster waits for may take, in wall seconds.

Doesn't belong here: how often something is asked meanwhile, which is where it is asked.
"""

from __future__ import annotations

TAKE_S = 300.0
"""For a lease: a former namespace of the lab may have to go away first."""
ASK_S = 60.0
"""For what is asked of the API server in passing."""
READY_S = 2400.0
"""For a stack to come up: a node, its image, and the weights of the largest model, each with its longest time."""
NODES_S = 1500.0
"""For Azure to give or take nodes."""
RELEASE_S = 600.0
"""For a namespace to go away: a pod may take its grace period, a volume its detachment."""
TICK_S = 20.0
"""For a tick of the reaper to have nodes taken away. Azure makes one change at a time, each of minutes: what it has not
taken by then, the next tick asks for."""
SCRAPED_S = 180.0
"""For Prometheus to find new pods: the operator's reload, discovery, and one interval."""
