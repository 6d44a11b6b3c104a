-- What did Azure's bill say of each day and resource, and when did it say so? One row per line of the bill and answer that
-- changed it: the same answer again adds nothing, another one a row (view bill_current has the newest). A day without rows
-- is a gap, never zero: bill_asks tells whether it was asked for.
CREATE TABLE bill_days (
    lab             VARCHAR NOT NULL,      -- all: a bill is of the whole cluster; `tag_lab` names a lab
    run_id          VARCHAR NOT NULL,      -- the reconciliation that asked
    target          VARCHAR NOT NULL,      -- aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    usage_date      DATE NOT NULL,         -- in UTC, as Azure counts days
    resource_id     VARCHAR,               -- in lower case; NULL: the charge names none
    pool            VARCHAR,               -- the node pool whose machines it is; NULL: it is something else
    tag_lab         VARCHAR,               -- its tag `lab` when it was used, e.g. l06; NULL: it had none
    currency        VARCHAR NOT NULL,      -- of `cost`, as Azure bills
    cost            DECIMAL(18, 9),        -- actual cost, rounded to 1e-9; NULL: this answer no longer had the line
    cost_usd        DECIMAL(18, 9),        -- the same in USD; NULL: Azure did not say
    asked_at        TIMESTAMPTZ NOT NULL,
    asked_from      DATE NOT NULL,         -- the window that was asked for, both days within
    asked_to        DATE NOT NULL,
    CHECK (usage_date BETWEEN asked_from AND asked_to),
    CHECK (cost IS NOT NULL OR cost_usd IS NULL)
);
