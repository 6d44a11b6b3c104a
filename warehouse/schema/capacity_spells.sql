-- How many replicas would a pool have had, over months in which Azure takes Spot nodes back? One row per spell without a
-- change, as the step `reclaims` drew it, for each scenario. Its hours are a time of their own, since the first month began.
CREATE TABLE capacity_spells (
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
    scenario        VARCHAR NOT NULL,
    position        INTEGER NOT NULL,      -- of the scenario in its step; 0: the lab's own
    reclaims_per_hour DOUBLE NOT NULL,     -- of one Spot node
    together        DOUBLE NOT NULL CHECK (together BETWEEN 0 AND 1),  -- share of these that take all Spot nodes at once
    band            VARCHAR NOT NULL,      -- Azure's, in evictions per hour, in percent
    wait_s          DOUBLE NOT NULL,       -- mean time until there is capacity again
    cold_start_s    DOUBLE NOT NULL,       -- of the session that the step was done in
    requests_per_s  DOUBLE NOT NULL,       -- what all replicas together are asked to serve
    on_demand_nodes INTEGER NOT NULL,
    spot_nodes      INTEGER NOT NULL,
    on_demand_usd   DECIMAL(18, 6),        -- per node-hour; NULL: no such node, or no price is known
    spot_usd        DECIMAL(18, 6),
    month           INTEGER NOT NULL,      -- 0, 1, … of 730 hours each
    started_h       DOUBLE NOT NULL,
    hours           DOUBLE NOT NULL CHECK (hours > 0),
    on_demand_up    INTEGER NOT NULL CHECK (on_demand_up BETWEEN 0 AND on_demand_nodes),
    spot_up         INTEGER NOT NULL CHECK (spot_up >= 0),
    spot_starting   INTEGER NOT NULL CHECK (spot_starting >= 0),  -- paid for, and not yet serving
    CHECK (spot_up + spot_starting <= spot_nodes),
    CHECK (provenance = 'modelled')        -- a month that was drawn is no measurement
);
