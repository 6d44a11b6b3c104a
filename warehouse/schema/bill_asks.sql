-- Which days of Azure's bill were asked for, and when? One row per window and answer, also when it held nothing. With it,
-- "asked, and nothing there" differs from "never asked".
CREATE TABLE bill_asks (
    lab             VARCHAR NOT NULL,      -- all
    run_id          VARCHAR NOT NULL,      -- the reconciliation that asked
    target          VARCHAR NOT NULL,      -- aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,
    asked_at        TIMESTAMPTZ NOT NULL,
    asked_from      DATE NOT NULL,         -- both days within, at most 31
    asked_to        DATE NOT NULL,
    scope           VARCHAR NOT NULL,      -- whose bill: the cluster's node resource group
    days_with_data  INTEGER NOT NULL,
    lines           INTEGER NOT NULL,
    calls           INTEGER NOT NULL,      -- requests that the answer took
    CHECK (asked_from <= asked_to),
    CHECK (asked_to - asked_from < 31)
);
