-- How many requests that ended by their length does the log have?
SELECT count(*) FROM log_requests WHERE session_id = $session_id AND logged_at >= $start AND finished_reason = 'length'
