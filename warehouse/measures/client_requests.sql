-- How many requests did clients see answered, whatever the status?
SELECT count(*) FROM requests WHERE session_id = $session_id AND http_status IS NOT NULL
