-- Which sessions of run $run_id has nobody closed, and when did their last stage end? One row each, as it was opened.
SELECT s.*, last.ended_at AS last_stage_ended_at
FROM stack_sessions AS s
LEFT JOIN (SELECT session_id, max(ended_at) AS ended_at FROM load_stages GROUP BY session_id) AS last USING (session_id)
WHERE s.run_id = $run_id
QUALIFY count(*) FILTER (s.state = 'closed') OVER (PARTITION BY s.session_id) = 0
ORDER BY s.requested_at;
