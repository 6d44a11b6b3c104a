-- What is missing from the shown runs? One row per run, measure and reason, with the variants and the loads concerned.
WITH places AS (
    SELECT
        run_id, lab, target, measure, reason, users, profile, load,
        min(step) AS step, min(stage) AS stage, list(DISTINCT variant) AS variants
    FROM metric_gaps
    SEMI JOIN latest_run USING (session_id)
    GROUP BY run_id, lab, target, measure, reason, users, profile, load
)
SELECT
    run_id, lab, target, measure, reason,
    list_sort(list_distinct(flatten(list(variants)))) AS variants,
    list(users ORDER BY step, stage) FILTER (users IS NOT NULL AND profile IS DISTINCT FROM 'burst') AS users,
    list(load ORDER BY step, stage) FILTER (profile NOT IN ('ramp', 'constant')) AS loads
FROM places
GROUP BY run_id, lab, target, measure, reason
ORDER BY run_id, measure, reason;
