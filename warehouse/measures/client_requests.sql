-- How many requests did clients see answered in a stage?
SELECT count(*) FROM requests
WHERE session_id = $session_id AND step = $step AND http_status IS NOT NULL AND finished_at BETWEEN $start AND $end
