-- What is each measure's value in each stage? A series that is missing is a gap with its reason, never a zero.
CREATE TABLE metric_summaries (
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
    step            VARCHAR,               -- NULL: the whole run
    stage           INTEGER,
    users           INTEGER,               -- NULL: an open loop, or the whole run
    measure         VARCHAR NOT NULL,
    unit            VARCHAR NOT NULL,
    statistic       VARCHAR NOT NULL,
    value           DOUBLE,                -- NULL exactly when status is 'gap'
    samples         INTEGER NOT NULL,
    status          VARCHAR NOT NULL CHECK (status IN ('ok', 'gap')),
    gap_reason      VARCHAR,
    promql          VARCHAR,               -- as it was sent; NULL: it was asked in SQL
    sql_file        VARCHAR,               -- the file below warehouse/measures; NULL: it was asked in PromQL
    window_start    TIMESTAMPTZ NOT NULL,
    window_end      TIMESTAMPTZ NOT NULL,
    CHECK ((status = 'gap') = (value IS NULL)),
    CHECK ((status = 'gap') = (gap_reason IS NOT NULL))
);
