-- For how many node-hours did all runs on a target hold machines?
SELECT
    sum(node_hours)::DOUBLE AS value, 'h' AS unit,
    $target AS target,
    CASE WHEN bool_and(provenance = 'measured') THEN 'measured' ELSE 'modelled' END AS provenance,
    list(DISTINCT run_id ORDER BY run_id) AS run_id,
    (SELECT max(recorded_at) FROM cost_records AS c WHERE c.target = $target) AS recorded_at
FROM session_money
WHERE target = $target
HAVING count(*) > 0;
