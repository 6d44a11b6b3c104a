-- What does a token cost? One row per stage, and one for the whole session (stage NULL) with idle and cold start, for each
-- state: estimated, and once the bill has come billed too (view sheet_current chooses). docs/finops.md has the formulas.
-- A quotient is NULL where no price is known or nothing was done. A column that files from before it lack is NULL there.
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
    usd             DECIMAL(18, 9),        -- NULL: no price is known for the machine, or the bill was not in dollars
    serve_usd       DECIMAL(18, 9),
    idle_usd        DECIMAL(18, 9),
    cold_start_usd  DECIMAL(18, 9),
    failed_usd      DECIMAL(18, 9),
    usd_per_1k_output_tokens DOUBLE,       -- all of usd over the output tokens
    usd_per_1k_tokens DOUBLE,              -- input and output
    usd_per_request DOUBLE,
    idle_share      DOUBLE,                -- idle node time / node time
    -- which configuration, and by which state of the costs
    state           VARCHAR CHECK (state IN ('estimated', 'billed')),  -- NULL: estimated
    bill_state      VARCHAR CHECK (bill_state IN ('provisional', 'settled')),  -- NULL: estimated
    model           VARCHAR,               -- NULL: the stack has no engine
    values_digest   VARCHAR,               -- of the Helm values: another one is another configuration
    region          VARCHAR,               -- NULL: no price is known, or several
    priority        VARCHAR CHECK (priority IN ('on_demand', 'spot')),  -- NULL: unknown, or both
    nodes           INTEGER,
    gpus_per_node   INTEGER,               -- that a node is paid with, used or not; NULL: the machine is not known
    profile         VARCHAR,               -- as in load_stages; NULL: the whole session
    offered_per_s   DOUBLE,                -- NULL: no rate was asked for
    -- between these the cost lies, for all that is known of the unit price; a bill has no such doubt
    usd_low         DECIMAL(18, 9),
    usd_high        DECIMAL(18, 9),
    -- the cost of the input and of the output tokens, by the time that serving them took; they sum to usd
    prefill_share   DOUBLE,                -- of the serving time; NULL: no request had tokens
    input_usd       DECIMAL(18, 9),
    output_usd      DECIMAL(18, 9),
    input_usd_per_1k_tokens DOUBLE,        -- input_usd over the input tokens
    output_usd_per_1k_tokens DOUBLE,
    serve_input_usd_per_1k_tokens DOUBLE,  -- the same of serve_usd alone: without idle, cold start and failures
    serve_output_usd_per_1k_tokens DOUBLE,
    -- the objective that was held against the requests, in stack seconds (NULL: none of that kind), and what met it
    slo_ttft_s      DOUBLE,
    slo_tpot_s      DOUBLE,
    slo_e2e_s       DOUBLE,
    useful_requests INTEGER,               -- of `requests`; NULL: no objective, or a client over its error budget
    useful_input_tokens BIGINT,
    useful_output_tokens BIGINT,
    useful_share    DOUBLE,                -- useful_requests / requests
    usd_per_useful_request DOUBLE,
    usd_per_1k_useful_tokens DOUBLE,
    usd_per_1k_useful_output_tokens DOUBLE,
    -- what waiting cost
    gpu_hours       DOUBLE,                -- node_hours x gpus_per_node; NULL: the machine is not known
    idle_gpu_hours  DOUBLE,
    efficiency      DOUBLE,                -- serve node time / node time
    cold_start_requests DOUBLE,            -- so many requests of the warm time cost as much; NULL: a stage, or none began
    break_even_idle_s DOUBLE               -- idle for longer, the nodes had better been given back; NULL as above
);
