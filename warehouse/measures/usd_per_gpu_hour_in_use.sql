-- What does an hour cost in which the GPU served, when it pays for the cold start and the idle hours too?
SELECT
    (sum(c.usd) / nullif(sum(c.node_hours) FILTER (c.part = 'serve'), 0))::DOUBLE / nullif(any_value(s.gpus), 0) AS usd,
    'nothing was served, or no price is known for the machine' AS gap
FROM session_cost AS c JOIN stack_sessions AS s USING (session_id)
WHERE c.session_id = $session_id AND c.state = 'estimated' AND s.state = 'closed'
