-- How long has each machine type stood idle under a lab, and what did that cost? One row per machine type: idle node-hours,
-- as a share of all, and in USD as estimated (NULL: no price is known). Of sessions that began in the time shown.
SELECT
    coalesce(sku, 'of no known type') AS machine,
    (sum(node_hours) FILTER (part = 'idle'))::DOUBLE AS idle_node_hours,
    (sum(node_hours) FILTER (part = 'idle'))::DOUBLE / nullif(sum(node_hours)::DOUBLE, 0) AS idle_share,
    (sum(usd) FILTER (part = 'idle'))::DOUBLE AS idle_usd
FROM session_cost
WHERE target = '${target}' AND state = 'estimated' AND $__timeFilter(started_at)
GROUP BY sku
ORDER BY idle_node_hours DESC NULLS LAST;
