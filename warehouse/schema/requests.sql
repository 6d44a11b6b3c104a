-- What did each request see? One row per request that was sent, also those that failed or were cut off, and those of an
-- open loop that were due when the load ended. Completions and plain GETs; a GET has no tokens.
-- Latencies are in stack seconds and run from the scheduled send time; columns in _wall_s are in wall seconds.
CREATE TABLE requests (
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
    stage           INTEGER NOT NULL,      -- 0, 1, … within the step: the one in which it was sent, or was to be sent
    users           INTEGER,               -- concurrent users of that stage; NULL: it has a rate
    request_id      VARCHAR NOT NULL,
    worker          VARCHAR NOT NULL,      -- Locust process
    user_index      INTEGER,               -- NULL: at a rate nobody waits for the answer
    shape           INTEGER,               -- which of the step's requests it was, from 0; NULL: it had only one
    path            VARCHAR,               -- of a plain GET; NULL: a completion
    scheduled_at    TIMESTAMPTZ NOT NULL,
    sent_at         TIMESTAMPTZ NOT NULL,
    finished_at     TIMESTAMPTZ NOT NULL,
    schedule_lag_s  DOUBLE NOT NULL,       -- sent - scheduled
    client_lag_wall_s DOUBLE,              -- of that, what the client alone is to blame for; NULL: nobody kept count
    ttft_s          DOUBLE,                -- NULL: no token arrived, or none was asked for
    e2e_s           DOUBLE,                -- NULL: it did not finish
    tpot_s          DOUBLE,                -- (e2e - ttft) / (output_tokens - 1); NULL below two tokens
    event_offsets_s FLOAT[] NOT NULL,      -- each streamed event, from the scheduled send time
    input_tokens    INTEGER,               -- as the server's usage says; NULL: it did not say, or a plain GET
    output_tokens   INTEGER,               -- as the server's usage says, else counted events of a cut-off request
    expected_input_tokens  INTEGER,        -- NULL: a plain GET, which asks for no tokens
    expected_output_tokens INTEGER,
    outcome         VARCHAR NOT NULL CHECK (outcome IN ('ok', 'http_error', 'timeout', 'connection_error', 'stream_error', 'cut')),
    http_status     INTEGER,
    finish_reason   VARCHAR,
    error           VARCHAR,
    server_ttft_s   DOUBLE,                -- by the server's own stamps; NULL: it does not stamp
    ttft_lag_wall_s DOUBLE,                -- client TTFT - server TTFT
    receive_lag_p99_wall_s DOUBLE,         -- event received - event sent, over the request's events
    first_receive_lag_wall_s DOUBLE,       -- the same of the first event alone; NULL: not the same clock
    in_stage        BOOLEAN NOT NULL,      -- sent and finished within one stage
    valid           BOOLEAN NOT NULL,      -- belongs in summaries and findings
    invalid_reasons VARCHAR[] NOT NULL
);
