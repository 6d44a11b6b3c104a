-- Where did the money go: what share of the node time, and how many dollars, went into serving and into waiting?
SELECT
    lab, variant, target, pace, provenance, time_scale, state, part,
    round(node_hours, 4) AS node_hours,
    round(usd, 6) AS usd,
    round(share_of_node_time, 3) AS share
FROM session_cost
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, variant, target, pace, session_id, state, node_hours DESC;
