-- How far off was the client itself, in each shown run? One row per run and quantity: the worst stage's `value`, over all
-- stages and variants, and in how many stages it was judged and was over its budget. lab_pipelines/client_errors.py has
-- the words for it.
SELECT
    run_id, lab, target, quantity, unit,
    max(value) AS value,
    arg_max(allowed, coalesce(value, -1)) AS allowed,
    count(*) AS stages,
    count(within) AS judged,
    count(*) FILTER (NOT within) AS over,
    string_agg(DISTINCT reason, '; ' ORDER BY reason) AS reason
FROM client_errors
SEMI JOIN latest_run USING (session_id)
GROUP BY run_id, lab, target, quantity, unit
ORDER BY run_id, quantity;
