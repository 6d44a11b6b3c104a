-- Which share of the idle cost of all labs before L72 would an alert after 60 idle minutes have saved, that looks at requests
-- alone? No value below twenty sessions: a few say nothing of a year.
SELECT
    CASE WHEN count(*) >= 20 THEN sum(saved_usd) / nullif(sum(idle_usd), 0) END AS share,
    count(*) || ' sessions of labs before L72 on target ' || $target || ', and fewer than 20 decide nothing'
        AS gap
FROM idle_alerts
WHERE target = $target AND lab < 'L72' AND after_min = 60 AND signals = 'requests'
