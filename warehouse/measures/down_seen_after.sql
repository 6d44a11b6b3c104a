-- How long after the first order to stop did Prometheus see the component as down, in stack seconds?
SELECT epoch(seen.ended_at - stop.started_at) * seen.time_scale
FROM events stop JOIN events seen USING (session_id)
WHERE session_id = $session_id AND stop.kind = 'stop' AND seen.name = 'seen-down' AND seen.outcome = 'ok'
