-- Which nodes did a session hold, for how long, and which part of each did it ask for? One row per node, or per group of
-- identical nodes that it held alone for the same time. Written when the session is over. A session without a row held the
-- nodes of its stack_sessions row, alone. Several sessions may hold a node (target, node) at the same time, of any lab:
-- lab_pipelines/sharing.py says who pays what.
CREATE TABLE node_time (
    lab             VARCHAR NOT NULL,      -- L01 … L78
    variant         VARCHAR NOT NULL,
    trial           INTEGER NOT NULL,
    run_id          VARCHAR NOT NULL,      -- the Dagster run that deployed the stack: one lab run, one id
    target          VARCHAR NOT NULL,      -- local, rehearsal, kubernetes, aks
    engine          VARCHAR NOT NULL,      -- modelled-vllm, vllm, external, or none
    pace            VARCHAR NOT NULL,      -- which of the spec's paces
    time_scale      DOUBLE  NOT NULL CHECK (time_scale > 0),  -- stack seconds per wall second
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    CHECK (provenance = 'modelled' OR (engine NOT LIKE 'modelled%' AND time_scale = 1)),
    session_id      VARCHAR NOT NULL,
    node            VARCHAR,               -- its name; NULL: it has none, or the row stands for several
    nodes           INTEGER NOT NULL CHECK (nodes >= 0),  -- how many the row stands for; 0: it held none
    pool            VARCHAR,               -- the node pool; NULL: none is known
    sku             VARCHAR,               -- NULL: a machine without a known price
    priority        VARCHAR NOT NULL CHECK (priority IN ('on_demand', 'spot')),
    held_from       TIMESTAMPTZ NOT NULL,  -- by the session: from its request or the node's order, whichever was later
    held_until      TIMESTAMPTZ NOT NULL CHECK (held_until >= held_from),
    cold_start_s    DOUBLE NOT NULL CHECK (cold_start_s >= 0),  -- of each node, stack seconds before the first token
    held_s          DOUBLE NOT NULL CHECK (held_s >= 0),        -- of each node, stack seconds since then
    exclusive       BOOLEAN NOT NULL,      -- no other session may hold it
    capacity_gpus   DOUBLE,                -- what can be asked of the node; NULL: nobody looked
    capacity_cpus   DOUBLE,
    capacity_memory_bytes DOUBLE,
    requested_gpus  DOUBLE,                -- by the session's pods on the node; NULL: nobody looked
    requested_cpus  DOUBLE,
    requested_memory_bytes DOUBLE,
    used_gpus       DOUBLE,                -- mean over the time held; NULL: unknown
    used_cpus       DOUBLE,
    used_memory_bytes DOUBLE,
    CHECK (exclusive OR (nodes = 1 AND node IS NOT NULL)),
    CHECK (exclusive OR (capacity_gpus IS NOT NULL AND capacity_cpus IS NOT NULL AND capacity_memory_bytes IS NOT NULL)),
    CHECK (exclusive OR (requested_gpus IS NOT NULL AND requested_cpus IS NOT NULL AND requested_memory_bytes IS NOT NULL))
);
