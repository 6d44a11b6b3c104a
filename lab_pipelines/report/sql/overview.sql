-- Which sessions does the report show? The newest of each lab, variant, target, pace and engine, run by run.
-- `repeated` names the variants of the same run that a newer one has walked again.
SELECT
    *,
    max(recorded_at) OVER run AS run_recorded_at,
    coalesce(list(variant ORDER BY position) FILTER (NOT latest) OVER run, []) AS repeated
FROM run_overview
WINDOW run AS (PARTITION BY target, lab, run_id)
QUALIFY latest
ORDER BY target, lab, run_recorded_at DESC, run_id, position;
