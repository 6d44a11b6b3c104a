-- Where did each lab's money go? One row per lab, in USD as estimated, of all its runs that began in the time shown: those
-- that failed or were cut have been paid for too. `unpriced` counts sessions in no sum, since no price is known.
SELECT
    lab,
    (sum(usd) FILTER (part = 'serve'))::DOUBLE AS serve,
    (sum(usd) FILTER (part = 'idle'))::DOUBLE AS idle,
    (sum(usd) FILTER (part = 'cold_start'))::DOUBLE AS cold_start,
    (sum(usd) FILTER (part = 'failed'))::DOUBLE AS failed,
    count(DISTINCT session_id) FILTER (usd IS NULL) AS unpriced
FROM session_cost
WHERE target = '${target}' AND state = 'estimated' AND $__timeFilter(started_at)
GROUP BY lab
ORDER BY lab;
