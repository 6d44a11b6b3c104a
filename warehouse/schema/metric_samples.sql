-- What did Prometheus hold? Samples of every `over: stage` measure, in the measure's unit and stack time.
CREATE TABLE metric_samples (
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
    step            VARCHAR NOT NULL,
    stage           INTEGER NOT NULL,
    users           INTEGER,               -- NULL: the stage has a rate
    measure         VARCHAR NOT NULL,
    unit            VARCHAR NOT NULL,
    sampled_at      TIMESTAMPTZ NOT NULL,
    value           DOUBLE NOT NULL
);
