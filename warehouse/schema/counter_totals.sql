-- Do the server's own counters agree with what the client counted, over a whole load step? A missing counter is a gap.
CREATE TABLE counter_totals (
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
    quantity        VARCHAR NOT NULL,      -- output_tokens, requests_ok
    counter         VARCHAR NOT NULL,      -- the selector that was asked
    client_total    DOUBLE NOT NULL,
    client_unknown  DOUBLE NOT NULL,       -- what it can't know: cut requests may have ended, or had drafts
    server_total    DOUBLE,                -- NULL: Prometheus has no such counter
    disagreement    DOUBLE                 -- server's distance from client_total … + client_unknown, / client_total
);
