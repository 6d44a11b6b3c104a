-- What does a GPU-hour cost in which no request runs?
SELECT
    (sum(c.usd) / nullif(sum(c.node_hours), 0))::DOUBLE / nullif(any_value(s.gpus), 0) AS usd,
    'it was never idle, or no price is known for the machine' AS gap
FROM session_cost AS c JOIN stack_sessions AS s USING (session_id)
WHERE c.session_id = $session_id AND c.state = 'estimated' AND c.part = 'idle' AND s.state = 'closed'
