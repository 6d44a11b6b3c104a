-- Did the lab's claim hold on its own rows?
CREATE TABLE findings (
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
    finding         VARCHAR NOT NULL,
    claim           VARCHAR NOT NULL,
    verdict         VARCHAR NOT NULL CHECK (verdict IN ('confirmed', 'refuted', 'inconclusive')),
    effect          DOUBLE,
    interval_low    DOUBLE,                -- holds with 95 % together with the lab's others, so alone with what
                                           -- method says; NULL where the values are all there are
    interval_high   DOUBLE,
    n               INTEGER NOT NULL,
    method          VARCHAR NOT NULL,
    reason          VARCHAR NOT NULL
);
