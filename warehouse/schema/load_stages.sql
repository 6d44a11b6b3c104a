-- What load was applied, for how long, and did enough requests finish?
CREATE TABLE load_stages (
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
    profile         VARCHAR CHECK (profile IN ('ramp', 'constant', 'burst', 'rate', 'rate_profile', 'trace')),  -- NULL: a ramp
    request_kind    VARCHAR CHECK (request_kind IN ('completion', 'http')),  -- NULL: completions
    stage           INTEGER NOT NULL,
    users           INTEGER,               -- concurrent users; requests at once of a burst; NULL: by a schedule
    offered_per_s   DOUBLE,                -- requests per stack second, on the mean of the stage; NULL: not by a schedule
    started_at      TIMESTAMPTZ NOT NULL,
    ended_at        TIMESTAMPTZ NOT NULL,
    duration_s      DOUBLE NOT NULL,       -- stack seconds
    duration_wall_s DOUBLE NOT NULL,
    hold_s          DOUBLE NOT NULL,       -- as pace or profile asked, stack seconds; 0: a burst ends with its last request
    min_requests    INTEGER NOT NULL,
    requests_in_stage INTEGER NOT NULL,    -- sent and finished within the stage, any outcome
    requests_ok     INTEGER NOT NULL,      -- of those, the successful ones
    output_tokens   BIGINT NOT NULL,       -- received by the client within the stage's window, from any request
    clipped_requests INTEGER,              -- requests of a trace sent with other token counts than its own; NULL: no trace
    client_cpu_share DOUBLE,               -- CPU seconds of the load generator per wall second; NULL: not sampled
    model_range     VARCHAR,               -- inside, or outside: why, of what the engine model was compared with; NULL: no model
    CHECK ((users IS NULL) = (offered_per_s IS NOT NULL))
);
