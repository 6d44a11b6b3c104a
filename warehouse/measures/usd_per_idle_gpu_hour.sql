-- What does a GPU-hour cost in which no request runs?
SELECT
    max(c.ListUnitPrice)::DOUBLE / nullif(max(s.gpus), 0) AS usd,
    'it was never idle, or no price is known for the machine' AS gap
FROM cost_current AS c JOIN stack_sessions AS s USING (session_id)
WHERE c.session_id = $session_id AND c.x_state = 'estimated' AND c.x_part = 'idle' AND s.state = 'closed'
