-- Which sessions of a target held nodes at any time from $first until $until, and of which pool were they? One row per
-- span of nodes that a session held together, as node_time tells; of such a session also the spans of other times. A session of before that table held its own nodes all
-- the time; `pool` is NULL where the sensor never saw a pool of its machine type, or saw several.
WITH pools AS (
    SELECT vm_size, any_value(pool) AS pool
    FROM gpu_decisions
    WHERE target = $target
    GROUP BY vm_size
    HAVING count(DISTINCT pool) = 1
),
closed AS (
    SELECT * FROM stack_sessions
    WHERE target = $target AND state = 'closed'
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY recorded_at DESC) = 1
),
held AS (
    SELECT * FROM node_time
    WHERE target = $target
    QUALIFY recorded_at = max(recorded_at) OVER (PARTITION BY session_id)
),
spans AS (
    SELECT h.session_id, h.lab, h.run_id, h.nodes, h.held_from AS requested_at, h.held_until AS released_at, h.pool, h.sku
    FROM held AS h
    SEMI JOIN closed USING (session_id)
    WHERE h.nodes > 0
    UNION ALL
    SELECT session_id, lab, run_id, nodes, requested_at, released_at, NULL AS pool, sku
    FROM closed
    ANTI JOIN held USING (session_id)
)
SELECT s.session_id, s.lab, s.run_id, s.nodes, s.requested_at, s.released_at, coalesce(s.pool, pools.pool) AS pool
FROM spans AS s
LEFT JOIN pools ON pools.vm_size = s.sku
SEMI JOIN (
    FROM spans WHERE (released_at > $first OR requested_at >= $first) AND requested_at < $until
) AS touching ON touching.session_id = s.session_id
ORDER BY s.requested_at, s.session_id, pool;
