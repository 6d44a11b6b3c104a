-- How many requests per stack second did clients see answered in a stage?
SELECT count(*) FILTER (r.http_status IS NOT NULL AND r.finished_at BETWEEN $start AND $end) / s.duration_s
FROM load_stages s JOIN requests r USING (session_id, step)
WHERE session_id = $session_id AND step = $step AND s.stage = $stage
GROUP BY s.duration_s
