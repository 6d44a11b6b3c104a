-- What share of the node time, and of the money, was not spent on serving?
SELECT
    lab, variant, target, pace, provenance, time_scale, state,
    round(sum(node_hours), 4) AS node_hours,
    round(sum(usd), 6) AS usd,
    round(coalesce(sum(share_of_node_time) FILTER (part = 'idle'), 0), 3) AS idle,
    round(coalesce(sum(share_of_node_time) FILTER (part = 'cold_start'), 0), 3) AS cold_start,
    round(coalesce(sum(share_of_node_time) FILTER (part = 'failed'), 0), 3) AS failed
FROM session_cost
SEMI JOIN latest_run USING (session_id)
GROUP BY lab, variant, target, pace, provenance, time_scale, state
ORDER BY lab, variant, target, pace, state;
