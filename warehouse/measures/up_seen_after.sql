-- How long after the order to start did Prometheus see the component as up again, in stack seconds?
SELECT epoch(seen.ended_at - start.started_at) * seen.time_scale
FROM events start JOIN events seen USING (session_id)
WHERE session_id = $session_id AND start.kind = 'start' AND seen.name = 'seen-up' AND seen.outcome = 'ok'
