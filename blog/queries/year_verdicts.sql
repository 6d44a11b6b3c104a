-- How many claims of all labs ended as $verdict on a target, by the newest run of each?
SELECT
    count(*) FILTER (verdict = $verdict) AS value, 'count' AS unit,
    $target AS target,
    CASE WHEN bool_and(provenance = 'measured') THEN 'measured' ELSE 'modelled' END AS provenance,
    list(DISTINCT run_id ORDER BY run_id) AS run_id, max(recorded_at) AS recorded_at
FROM findings
SEMI JOIN latest_run USING (session_id)
WHERE target = $target
HAVING count(*) > 0;
