-- What does a token cost? One row per stage, and one for the whole session (stage NULL) with idle and cold start.
CREATE TABLE finops_sheet (
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
    step            VARCHAR,
    stage           INTEGER,               -- NULL: the whole session
    users           INTEGER,               -- NULL: the stage has a rate, or the whole session
    sku             VARCHAR,
    requests        INTEGER NOT NULL,      -- successful ones
    input_tokens    BIGINT NOT NULL,
    output_tokens   BIGINT NOT NULL,
    node_hours      DOUBLE NOT NULL,
    usd             DECIMAL(18, 9),        -- NULL: no price is known for the machine
    serve_usd       DECIMAL(18, 9),
    idle_usd        DECIMAL(18, 9),
    cold_start_usd  DECIMAL(18, 9),
    failed_usd      DECIMAL(18, 9),
    usd_per_1k_output_tokens DOUBLE,       -- NULL: no price is known, or there were no tokens
    usd_per_1k_tokens DOUBLE,              -- input and output
    usd_per_request DOUBLE,
    idle_share      DOUBLE                 -- idle node time / node time
);
