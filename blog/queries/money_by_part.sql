-- Where did the money of all runs on a target go: serving, failed requests, waiting, or coming up? The bill where it
-- has come in dollars, else the estimate. USD are NULL where one session of the part has no price.
SELECT
    CASE part WHEN 'serve' THEN 'serving' WHEN 'failed' THEN 'failed requests' WHEN 'cold_start' THEN 'cold start'
        ELSE part
    END AS "the node was",
    sum(node_hours)::DOUBLE AS "node-hours",
    CASE WHEN count(*) = count(usd) THEN sum(usd)::DOUBLE END AS "USD",
    100 * (sum(node_hours) / sum(sum(node_hours)) OVER (PARTITION BY provenance))::DOUBLE AS "share of the hours, %",
    $target AS target, provenance, list(DISTINCT run_id ORDER BY run_id) AS run_id,
    (SELECT max(recorded_at) FROM cost_records AS c WHERE c.target = $target) AS recorded_at
FROM session_money
WHERE target = $target
GROUP BY part, provenance
ORDER BY provenance, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
