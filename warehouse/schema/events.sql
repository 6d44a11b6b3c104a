-- What happened to a lab run, and when? Cold-start phases, and every step of the lab with its outcome.
CREATE TABLE events (
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
    kind            VARCHAR NOT NULL,      -- cold_start (a phase), milestone (a moment of it), or a step's: load, observe, …
    name            VARCHAR NOT NULL,
    started_at      TIMESTAMPTZ NOT NULL,
    ended_at        TIMESTAMPTZ NOT NULL,
    duration_s      DOUBLE NOT NULL,       -- stack seconds
    outcome         VARCHAR NOT NULL CHECK (outcome IN ('ok', 'failed', 'skipped')),
    detail          VARCHAR                -- JSON, or NULL
);
