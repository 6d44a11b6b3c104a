-- How many labs have results on a target?
SELECT
    count(DISTINCT lab) AS value, 'count' AS unit,
    $target AS target,
    CASE WHEN bool_and(provenance = 'measured') THEN 'measured' ELSE 'modelled' END AS provenance,
    list(DISTINCT run_id ORDER BY run_id) AS run_id, max(recorded_at) AS recorded_at
FROM latest_run
WHERE target = $target
HAVING count(*) > 0;
