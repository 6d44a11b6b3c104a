-- Where did the money go? One row per part of a session's node time, in each of two states: `estimated` from a price
-- sheet, `billed` from Azure's bill. Columns in PascalCase are FOCUS 1.2's; x_ columns are ours. The parts of a session sum
-- to its node cost exactly. Nothing is edited: a later estimate or bill of a session is more rows, and those of the
-- newest `recorded_at` hold (view cost_current).
CREATE TABLE cost_records (
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
    ChargePeriodStart TIMESTAMPTZ NOT NULL,
    ChargePeriodEnd   TIMESTAMPTZ NOT NULL,
    BillingCurrency VARCHAR NOT NULL,
    ListUnitPrice   DECIMAL(18, 6),        -- per node-hour; NULL: no price is known for the machine
    PricingQuantity DECIMAL(18, 9) NOT NULL,  -- node-hours
    PricingUnit     VARCHAR NOT NULL,
    ListCost        DECIMAL(18, 9),
    BilledCost      DECIMAL(18, 9),        -- what Azure charged for it, in BillingCurrency; NULL: estimated
    SkuId           VARCHAR,
    RegionId        VARCHAR,
    x_priority      VARCHAR CHECK (x_priority IN ('on_demand', 'spot')),  -- NULL: no price is known for the machine
    x_pool          VARCHAR,               -- the node pool; NULL: none is known
    x_part          VARCHAR NOT NULL CHECK (x_part IN ('serve', 'idle', 'cold_start', 'failed')),
    x_step          VARCHAR,               -- NULL: outside every load step
    x_stage         INTEGER,               -- NULL: outside every stage
    x_state         VARCHAR NOT NULL CHECK (x_state IN ('estimated', 'billed')),
    x_method        VARCHAR NOT NULL,      -- how the number came about, in words
    x_price_low     DECIMAL(18, 6),        -- between these the unit price lies
    x_price_high    DECIMAL(18, 6),
    x_estimated_usd DECIMAL(18, 9),        -- what the newest estimate had said; NULL: estimated, or no price was known
    x_billed_usd    DECIMAL(18, 9),        -- BilledCost in USD; NULL: estimated, or Azure did not say it in USD
    x_delta_usd     DECIMAL(18, 9),        -- x_billed_usd - x_estimated_usd
    x_billed_at     TIMESTAMPTZ,           -- when Azure said so
    x_bill_state    VARCHAR CHECK (x_bill_state IN ('provisional', 'settled')),  -- may still change, or not any more
    CHECK ((ListUnitPrice IS NULL) = (ListCost IS NULL)),
    CHECK ((x_state = 'billed') = (BilledCost IS NOT NULL)),
    CHECK ((x_state = 'billed') = (x_billed_at IS NOT NULL)),
    CHECK ((x_state = 'billed') = (x_bill_state IS NOT NULL))
);
