-- Over all labs on this target, which share of the cost paid for time in which requests were served?
SELECT
    (sum(usd) FILTER (part = 'serve') / nullif(sum(usd), 0))::DOUBLE AS efficiency,
    'no session on target ' || $target || ' has a price' AS gap
FROM session_cost
WHERE target = $target AND state = 'estimated'
