-- Whose cost is each line of Azure's bill? One row per line and session that pays for it; `session_id` NULL: nobody does,
-- and `reason` says why. The rows of a day sum to its bill exactly. Those of the newest `recorded_at` of a day hold (view
-- bill_shares_current).
CREATE TABLE bill_shares (
    lab             VARCHAR NOT NULL,      -- all
    run_id          VARCHAR NOT NULL,      -- the reconciliation that placed it
    target          VARCHAR NOT NULL,      -- aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    usage_date      DATE NOT NULL,
    resource_id     VARCHAR,
    pool            VARCHAR,
    tag_lab         VARCHAR,
    currency        VARCHAR NOT NULL,
    session_id      VARCHAR,               -- NULL: no rule could place it
    cost            DECIMAL(18, 9) NOT NULL,  -- in `currency`
    cost_usd        DECIMAL(18, 9),        -- NULL: Azure did not say
    reason          VARCHAR,               -- why nobody pays for it
    CHECK ((session_id IS NULL) = (reason IS NOT NULL))
);
