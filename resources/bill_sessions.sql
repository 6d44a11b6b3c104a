-- Which sessions of a target held nodes at any time from $first until $until, and of which pool were they? One row per
-- span of nodes that a session held together. `pool` is NULL where the sensor never saw a pool of that machine type, or saw several.
WITH pools AS (
    SELECT vm_size, any_value(pool) AS pool
    FROM gpu_decisions
    WHERE target = $target
    GROUP BY vm_size
    HAVING count(DISTINCT pool) = 1
)
SELECT s.session_id, s.lab, s.run_id, s.nodes, s.requested_at, s.released_at, pools.pool
FROM stack_sessions AS s
LEFT JOIN pools ON pools.vm_size = s.sku
WHERE s.target = $target AND s.state = 'closed'
    AND (s.released_at > $first OR s.requested_at >= $first) AND s.requested_at < $until
QUALIFY row_number() OVER (PARTITION BY s.session_id ORDER BY s.recorded_at DESC) = 1
ORDER BY s.requested_at, s.session_id;
