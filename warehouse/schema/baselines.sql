-- Which numbers are pinned, for later labs to be compared with? One row per stage of each file in results/baselines.
-- The files are the truth; these rows are for questions in SQL, and are published when a baseline is pinned or a report
-- is written. A lab's baseline on a target is the one with the highest `file`.
CREATE TABLE baselines (
    lab             VARCHAR NOT NULL,      -- L01 … L78
    variant         VARCHAR NOT NULL,
    run_id          VARCHAR NOT NULL,      -- the run that was pinned
    target          VARCHAR NOT NULL,      -- local, rehearsal, kubernetes, aks
    engine          VARCHAR NOT NULL,      -- modelled-vllm, vllm, external, or none
    pace            VARCHAR NOT NULL,      -- which of the spec's paces
    time_scale      DOUBLE  NOT NULL CHECK (time_scale > 0),  -- stack seconds per wall second
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,  -- when the file was read
    CHECK (provenance = 'modelled' OR (engine NOT LIKE 'modelled%' AND time_scale = 1)),
    file            VARCHAR NOT NULL,      -- 0001.json, 0002.json, … below results/baselines/<lab>/<target>
    digest          VARCHAR NOT NULL,      -- sha256 of its content
    pinned_at       TIMESTAMPTZ NOT NULL,
    spec_digest     VARCHAR NOT NULL,      -- sha256 of the lab's spec that the run ran
    values_digest   VARCHAR NOT NULL,      -- sha256 of the merged Helm values
    model           VARCHAR,               -- NULL: the stack has no engine
    sku             VARCHAR,               -- NULL: a machine without a known price
    nodes           INTEGER NOT NULL,
    step            VARCHAR NOT NULL,
    stage           INTEGER NOT NULL,
    users           INTEGER,               -- NULL: at a rate
    offered_per_s   DOUBLE,                -- NULL: no rate was asked for
    -- the columns of the view stage_table, in stack seconds; NULL: not known, or the file is older than the column
    requests        INTEGER,
    requests_ok     INTEGER,
    error_rate      DOUBLE,
    requests_per_s  DOUBLE,
    output_tokens_per_s DOUBLE,
    ttft_p50_s      DOUBLE,
    ttft_p95_s      DOUBLE,
    ttft_p99_s      DOUBLE,
    itl_p50_s       DOUBLE,
    itl_p95_s       DOUBLE,
    tpot_p50_s      DOUBLE,
    e2e_p50_s       DOUBLE,
    e2e_p95_s       DOUBLE,
    e2e_p99_s       DOUBLE,
    queue_depth     DOUBLE,
    kv_cache_usage  DOUBLE,
    usd_per_1k_tokens DOUBLE,              -- input and output
    usd_per_1k_output_tokens DOUBLE
);
