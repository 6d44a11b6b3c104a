-- How far off was the load generator itself, and was that within its budget? One row per load stage and quantity.
-- A stage over budget has no valid requests; a `token_mismatch` is a fault of single requests. Lags are in wall seconds.
CREATE TABLE client_errors (
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
    quantity        VARCHAR NOT NULL CHECK (quantity IN ('schedule_lag_p99', 'ttft_lag_p99', 'receive_lag_p99',
                        'event_loop_lag_p99', 'cpu_share', 'ttft_error_share', 'token_mismatch')),
    value           DOUBLE,                -- NULL: not known
    unit            VARCHAR NOT NULL CHECK (unit IN ('s', 'ratio')),
    allowed         DOUBLE NOT NULL,       -- as the spec had it
    n               INTEGER NOT NULL,      -- requests, or samples of a load process, behind the value
    within          BOOLEAN,               -- NULL: not judged
    reason          VARCHAR,               -- why it is not within, or not judged
    CHECK (coalesce(within, false) OR reason IS NOT NULL),
    CHECK (within IS NULL OR value IS NOT NULL)
);
