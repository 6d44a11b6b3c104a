-- Which share of the session's cost paid for time in which requests were served, and did not fail?
SELECT
    (sum(usd) FILTER (part = 'serve') / nullif(sum(usd), 0))::DOUBLE AS efficiency,
    'no price is known for the machine' AS gap
FROM session_cost
WHERE session_id = $session_id AND state = 'estimated'
