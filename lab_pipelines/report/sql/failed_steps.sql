-- Which steps failed, in any run, and has a newer run of the same lab, variant and place got past them since?
WITH steps AS (
    SELECT
        target, provenance, lab, variant, kind, name, run_id, outcome, started_at, recorded_at, detail
    FROM events
    WHERE kind NOT IN ('cold_start', 'milestone', 'lease', 'release')
)
SELECT
    target, provenance, lab, variant, kind, name,
    count(DISTINCT run_id) FILTER (outcome = 'failed') AS runs,
    arg_max(run_id, recorded_at) FILTER (outcome = 'failed') AS run_id,
    arg_max(coalesce(TRY_CAST(detail AS JSON) ->> '$.error', detail, ''), recorded_at) FILTER (outcome = 'failed') AS reason,
    coalesce(max(recorded_at) FILTER (outcome = 'ok') > max(recorded_at) FILTER (outcome = 'failed'), false) AS passed_since
FROM steps
GROUP BY target, provenance, lab, variant, kind, name
HAVING count(*) FILTER (outcome = 'failed') > 0
ORDER BY target, provenance, lab, variant, min(started_at), name;
