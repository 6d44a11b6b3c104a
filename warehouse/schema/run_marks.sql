-- Which runs must not speak for their lab, and why? One row per run that was cut off from outside. Its other rows stay,
-- and its cost counts; views that tell results leave it out (session_results.invalid_reason).
CREATE TABLE run_marks (
    lab             VARCHAR NOT NULL,      -- L01 … L78
    run_id          VARCHAR NOT NULL,      -- the Dagster run that is marked
    target          VARCHAR NOT NULL,      -- local, rehearsal, kubernetes, aks
    provenance      VARCHAR NOT NULL CHECK (provenance IN ('measured', 'modelled')),
    recorded_at     TIMESTAMPTZ NOT NULL,  -- when it was marked, which is just before it was cut
    mark            VARCHAR NOT NULL CHECK (mark IN ('cut')),
    scope           VARCHAR NOT NULL,      -- the budget that it was cut for: month, or the lab
    marked_by       VARCHAR NOT NULL,      -- budget_guard
    reason          VARCHAR NOT NULL       -- in words
);
