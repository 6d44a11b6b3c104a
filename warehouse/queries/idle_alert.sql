-- After how many idle minutes should an alert fire, and on which signals? Over all labs of a target: what each rule would
-- have saved, and how often it would have been wrong. L72 idles on purpose, and is left out.
SELECT
    target, after_min, signals, gpu_below_percent,
    count(*) AS sessions,
    round(sum(idle_usd), 4) AS idle_usd,
    round(sum(saved_usd), 4) AS saved_usd,
    round(sum(saved_usd) / nullif(sum(idle_usd), 0), 4) AS saved_share,
    sum(alarms)::BIGINT AS alarms,
    sum(false_alarms)::BIGINT AS false_alarms,
    sum(cold_starts)::BIGINT AS cold_starts,
    round(sum(unknown_hours), 4) AS unknown_hours
FROM idle_alerts
WHERE lab <> 'L72'
GROUP BY target, after_min, signals, gpu_below_percent
ORDER BY target, signals, gpu_below_percent NULLS FIRST, after_min;
