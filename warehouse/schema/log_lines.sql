-- What did the stack's components write to their logs? One row per structured line, as it was written.
CREATE TABLE log_lines (
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
    component       VARCHAR NOT NULL,      -- of the stack, e.g. vllm
    logged_at       TIMESTAMPTZ NOT NULL,
    level           VARCHAR NOT NULL,
    event           VARCHAR NOT NULL,      -- e.g. request_finished
    line            VARCHAR NOT NULL       -- the whole line, JSON
);
