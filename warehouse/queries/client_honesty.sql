-- How far off was the load generator itself, was that within its budget, and did it count what the server counted? One row per
-- stage and quantity, and one per step and counter. `within` is NULL where nothing was judged; `reason` says why, or what is over.
SELECT
    c.lab, c.variant, c.target, c.pace, c.time_scale, c.step, s.load, c.quantity,
    CASE c.unit WHEN 's' THEN round(1000 * c.value, 2) ELSE round(100 * c.value, 2) END AS value,
    CASE c.unit WHEN 's' THEN round(1000 * c.allowed, 2) ELSE round(100 * c.allowed, 2) END AS allowed,
    CASE c.unit WHEN 's' THEN 'wall ms' ELSE '%' END AS unit,
    c.n, c.within, c.reason
FROM client_errors AS c
JOIN stage_table AS s USING (session_id, step, stage)
SEMI JOIN latest_run USING (session_id)
UNION ALL BY NAME
SELECT
    t.lab, t.variant, t.target, t.pace, t.time_scale, t.step, 'the whole step' AS load,
    'prometheus_against_client: ' || t.quantity AS quantity,
    round(100 * t.disagreement, 2) AS value,
    '%' AS unit,
    if(t.disagreement IS NULL, 'the server exports no such counter', NULL) AS reason
FROM counter_totals AS t
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, variant, target, pace, step, load, quantity;
