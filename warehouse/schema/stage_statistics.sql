-- How sure is each number of a load stage? One row per stage and quantity, with a 95 % interval, and for each stage a row
-- `warm_up` and a row `steady_state`. docs/statistics.md says how each comes about. Times are stack seconds.
CREATE TABLE stage_statistics (
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
    users           INTEGER,               -- as in load_stages
    offered_per_s   DOUBLE,
    quantity        VARCHAR NOT NULL,      -- throughput, ttft_p50 … e2e_p99, normalised_p50, error_rate, goodput, goodput_rate
    unit            VARCHAR NOT NULL,      -- tokens/s, s, s/token, requests/s, or ratio: a share, or a relative change
    value           DOUBLE,                -- of warm_up: its length; of steady_state: the relative change. NULL: unknown
    low             DOUBLE,                -- 95 %; NULL: no interval, and reason says why
    high            DOUBLE,
    n               INTEGER NOT NULL,      -- requests, or slices of time
    n_effective     DOUBLE,                -- as many independent ones would have told as much
    method          VARCHAR NOT NULL,      -- says also how many requests were left out as warm-up
    reason          VARCHAR,
    left_out        INTEGER NOT NULL,      -- valid requests at the beginning that the number is not of; 0: it is of all
    state           VARCHAR CHECK (state IN ('steady', 'trend', 'level_shift', 'unknown')),  -- NULL: no such series
    drift           DOUBLE,                -- change of the quantity's series over the stage, relative to its median
    CHECK ((low IS NULL) = (high IS NULL))
);
