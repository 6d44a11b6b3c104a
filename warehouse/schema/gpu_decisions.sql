-- What did the scale-to-zero sensor decide about each node pool of ours, and on what grounds? One row per tick and pool
-- with nodes; what was done has a second row, with its outcome. docs/never-forgotten.md reads one aloud.
CREATE TABLE gpu_decisions (
    lab             VARCHAR NOT NULL,      -- all: a pool serves any lab; `held_by` names those that held it
    run_id          VARCHAR NOT NULL,      -- the batch of ticks that were published together
    target          VARCHAR NOT NULL,      -- local, rehearsal, kubernetes, aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    tick_at         TIMESTAMPTZ NOT NULL,  -- the clock of the decision
    pool            VARCHAR NOT NULL,
    vm_size         VARCHAR NOT NULL,
    mode            VARCHAR NOT NULL,      -- User, or System, which can't reach zero
    nodes           INTEGER NOT NULL CHECK (nodes >= 0),  -- before the decision, so that it can be undone
    ours            BOOLEAN NOT NULL,
    autoscaled      BOOLEAN NOT NULL,
    spot            BOOLEAN NOT NULL,
    state           VARCHAR NOT NULL,      -- Azure's provisioning state
    usd_per_h       DECIMAL(18, 6),        -- of all its nodes; NULL: no price is known
    held_by         VARCHAR[] NOT NULL,    -- labs whose lease on the pool was good
    held_until      TIMESTAMPTZ,           -- the last of these leases' ends; NULL: nobody held it
    requests        DOUBLE,                -- running and waiting on all engines of the pool; NULL: no sample
    requests_age_s  DOUBLE,                -- of the oldest sample in it
    requests_reporting INTEGER NOT NULL,   -- engines that were heard from
    requests_expected  INTEGER NOT NULL,   -- pods that hold a GPU there
    utilisation_percent DOUBLE,            -- of the busiest GPU; NULL: no sample
    utilisation_age_s   DOUBLE,
    utilisation_reporting INTEGER NOT NULL,  -- nodes whose GPUs were heard from
    utilisation_expected  INTEGER NOT NULL,
    signals_gap     VARCHAR,               -- why the monitoring could not be asked; NULL: it answered
    idle_for_s      DOUBLE,                -- NULL: not idle
    expected_idle_s DOUBLE,                -- how much longer it would probably stay so
    expected_idle_source VARCHAR,
    since_change_s  DOUBLE,                -- since its size was last seen to change; NULL: never
    cold_start_s    DOUBLE NOT NULL,       -- what the next one takes
    cold_start_source VARCHAR NOT NULL,
    switch          VARCHAR NOT NULL CHECK (switch IN ('off', 'dry-run', 'on')),
    policy          VARCHAR NOT NULL,      -- its settings, JSON
    action          VARCHAR NOT NULL CHECK (action IN ('keep', 'scale_to_zero')),
    rule            VARCHAR NOT NULL,      -- the first rule that applied; only `idle` acts
    reason          VARCHAR NOT NULL,      -- the same in words
    outcome         VARCHAR CHECK (outcome IN ('dry-run', 'asked', 'done', 'under_way', 'failed')),  -- NULL: nothing was to be done
    detail          VARCHAR,               -- what came of it, in words
    CHECK ((action = 'keep') = (outcome IS NULL)),
    CHECK ((requests IS NULL) = (requests_age_s IS NULL)),
    CHECK ((utilisation_percent IS NULL) = (utilisation_age_s IS NULL)),
    CHECK ((expected_idle_s IS NULL) = (idle_for_s IS NULL))
);
