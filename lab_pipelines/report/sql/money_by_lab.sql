-- Where did each lab's money go, over all its runs? The bill where it has come in dollars, else the estimate. One row per lab
-- and part. `usd` adds up what has a price; `unpriced_sessions` have none.
SELECT
    target, provenance, lab, part,
    sum(node_hours)::DOUBLE AS node_hours,
    sum(usd) AS usd,
    count(DISTINCT session_id) FILTER (usd IS NULL) AS unpriced_sessions,
    count(DISTINCT session_id) FILTER (state = 'billed') AS billed_sessions,
    count(DISTINCT session_id) AS sessions
FROM session_money
GROUP BY target, provenance, lab, part
ORDER BY target, provenance, lab, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
