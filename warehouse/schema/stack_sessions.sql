-- What was deployed, when, and how long did it take to come up? One row when it is ready (state 'open') and
-- one when it is released ('closed'). Every column in _s is in stack seconds; a NULL phase did not happen there.
CREATE TABLE stack_sessions (
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
    state           VARCHAR NOT NULL CHECK (state IN ('open', 'closed')),
    namespace       VARCHAR NOT NULL,
    model           VARCHAR,               -- NULL: the stack has no engine
    sku             VARCHAR,               -- NULL: a machine without a known price
    nodes           INTEGER NOT NULL,
    requested_at    TIMESTAMPTZ NOT NULL,
    ready_at        TIMESTAMPTZ NOT NULL,
    released_at     TIMESTAMPTZ,           -- NULL while open
    cold_start_time_scale DOUBLE NOT NULL, -- stack seconds per wall second while it came up
    node_ready_s    DOUBLE,                -- requested -> node Ready
    driver_ready_s  DOUBLE,                -- node Ready -> GPU driver and device plugin ready
    image_pulled_s  DOUBLE,                -- scheduled -> image pulled
    model_loaded_s  DOUBLE,                -- container started -> weights in GPU memory
    engine_ready_s  DOUBLE,                -- weights loaded -> compiled, CUDA graphs captured, answering /health
    first_token_s   DOUBLE,                -- ready -> first token of the first request
    cold_start_s    DOUBLE,                -- requested -> first token
    held_s          DOUBLE,                -- ready -> released; NULL while open
    spec_digest     VARCHAR NOT NULL,      -- sha256 of the lab's spec
    values_digest   VARCHAR NOT NULL,      -- sha256 of the merged Helm values
    engine_args     VARCHAR NOT NULL,      -- JSON list: the engine's command line
    refusal         VARCHAR,               -- what the engine said when it would not start; NULL: it came up
    model_range     VARCHAR,               -- inside, or outside: why, of what the engine model was compared with; NULL: no model
    gpus            INTEGER,               -- GPUs that the engine uses on each node; 0: none; NULL: not recorded
    cost_labels     VARCHAR                -- JSON: the labels on the lab's objects, by which a bill is split; NULL: none
);
