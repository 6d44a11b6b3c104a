-- How far off was the client itself, in each shown session? One row per session and quantity: the worst stage's value,
-- and over all stages whether it was within its budget (NULL: never judged).
SELECT
    run_id, lab, target, variant, session_id, quantity, unit,
    max(value) AS worst,
    arg_max(allowed, coalesce(value, -1)) AS allowed,
    count(*) AS stages,
    count(*) FILTER (NOT within) AS stages_over,
    count(within) AS stages_judged,
    bool_and(within) AS within,
    string_agg(DISTINCT reason, '; ' ORDER BY reason) AS reason
FROM client_errors
SEMI JOIN latest_run USING (session_id)
GROUP BY run_id, lab, target, variant, session_id, quantity, unit
ORDER BY run_id, variant, session_id, quantity;
