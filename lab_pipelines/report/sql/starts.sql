-- How long does it take from the request for a stack to its first token on each machine type, and what does the time go into?
-- One row per phase of the median session (a session that took place, not a mean), beside the fastest and the slowest one.
-- Sessions that waited for a node are told apart from those that found theirs up. Only of the runs that speak for their lab.
WITH sessions AS (
    SELECT session_id, max(sku) AS sku, max(nodes) AS nodes, max(node_ready_s) IS NOT NULL AS from_zero FROM stack_sessions GROUP BY session_id
),
starts AS (
    SELECT DISTINCT t.target, t.provenance, s.sku, s.nodes, s.from_zero, t.lab, t.variant, t.session_id, t.cold_start_s
    FROM cold_start_timeline AS t
    SEMI JOIN latest_run USING (session_id)
    JOIN sessions AS s USING (session_id)
    WHERE t.cold_start_s IS NOT NULL AND t.engine <> 'none'
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY target, provenance, sku, nodes, from_zero ORDER BY cold_start_s, session_id) AS place,
        count(*) OVER machine AS sessions,
        min(cold_start_s) OVER machine AS fastest_s,
        max(cold_start_s) OVER machine AS slowest_s
    FROM starts
    WINDOW machine AS (PARTITION BY target, provenance, sku, nodes, from_zero)
)
SELECT
    r.target, r.provenance, r.sku, r.nodes, r.from_zero, r.lab, r.variant, r.sessions, r.fastest_s, r.slowest_s, r.cold_start_s,
    t.position, t.phase, t.duration_s
FROM ranked AS r
JOIN cold_start_timeline AS t USING (session_id)
WHERE r.place = (r.sessions + 1) // 2
ORDER BY r.target, r.provenance, r.from_zero DESC, r.cold_start_s, r.sku, r.nodes, t.position;
