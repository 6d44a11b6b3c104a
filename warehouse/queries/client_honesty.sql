-- How far off was the load generator itself, was that within its budget, and did it count what the server counted?
-- One row per stage and quantity, and one per step and counter. Lags are in wall milliseconds, the rest in percent.
-- `within` is NULL where nothing was judged; `reason` says why, or what is over. Counters have a check of their own.
SELECT
    s.lab, s.variant, s.target, s.pace, s.time_scale, s.step, s.load, c.quantity,
    round(if(c.unit = 's', 1000, 100) * c.value, 2) AS value,
    round(if(c.unit = 's', 1000, 100) * c.allowed, 2) AS allowed,
    if(c.unit = 's', 'wall ms', '%') AS unit,
    c.n, c.within,
    if(c.quantity IS NULL, 'recorded before client errors were kept', c.reason) AS reason
FROM stage_table AS s
LEFT JOIN client_errors AS c USING (session_id, step, stage)
SEMI JOIN latest_run USING (session_id)
UNION ALL BY NAME
SELECT
    lab, variant, target, pace, time_scale, step, 'the whole step' AS load, 'prometheus_' || quantity AS quantity,
    round(100 * disagreement, 2) AS value,
    '%' AS unit,
    if(disagreement IS NULL, 'the server exports no such counter', NULL) AS reason
FROM counter_totals
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, variant, target, pace, step, load, quantity;
