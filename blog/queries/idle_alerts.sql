-- Which share of the money paid for idle GPUs would an alert have saved that looks at requests alone, by how many
-- minutes it waits, and how often would it have been wrong? Over all labs but L72, which idles on purpose.
SELECT
    after_min AS "alert after, min",
    sum(idle_usd)::DOUBLE AS "idle, USD",
    sum(saved_usd)::DOUBLE AS "saved, USD",
    100 * sum(saved_usd) / nullif(sum(idle_usd), 0) AS "saved, %",
    sum(alarms)::BIGINT AS "alarms",
    sum(false_alarms)::BIGINT AS "false ones",
    $target AS target,
    CASE WHEN bool_and(provenance = 'measured') THEN 'measured' ELSE 'modelled' END AS provenance,
    list(DISTINCT run_id ORDER BY run_id) AS run_id,
    (SELECT max(recorded_at) FROM latest_run AS r WHERE r.target = $target) AS recorded_at
FROM idle_alerts
WHERE target = $target AND lab <> 'L72' AND signals = 'requests'
GROUP BY after_min
ORDER BY after_min;
