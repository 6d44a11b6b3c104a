-- What did the money of the shown runs go into, variant by variant? The bill where it has come in dollars, else the estimate.
-- A variant's money is that of all its turns; it is told with the session that speaks for it.
SELECT
    lab, variant, target, engine, provenance, pace, time_scale, run_id, l.session_id,
    part,
    CASE WHEN count(DISTINCT state) = 1 THEN any_value(state) ELSE 'estimated and billed' END AS state,
    sum(node_hours) AS node_hours,
    CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd
FROM latest_run AS l
JOIN session_money AS m USING (lab, variant, target, pace, time_scale, engine, provenance, run_id)
GROUP BY lab, variant, target, engine, provenance, pace, time_scale, run_id, l.session_id, part
ORDER BY l.session_id, list_position(['serve', 'failed', 'idle', 'cold_start'], part);
