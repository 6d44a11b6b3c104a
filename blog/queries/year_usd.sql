-- What did all runs on a target cost? The bill where it has come in dollars, else the estimate. No value while a
-- session has no price.
SELECT
    CASE WHEN count(*) = count(usd) THEN sum(usd)::DOUBLE END AS value, 'USD' AS unit,
    count(DISTINCT session_id) FILTER (usd IS NULL) || ' sessions have no price' AS gap,
    $target AS target,
    CASE WHEN bool_and(provenance = 'measured') THEN 'measured' ELSE 'modelled' END AS provenance,
    list(DISTINCT run_id ORDER BY run_id) AS run_id,
    (SELECT max(recorded_at) FROM cost_records AS c WHERE c.target = $target) AS recorded_at
FROM session_money
WHERE target = $target
HAVING count(*) > 0;
