-- How many requests did clients see answered with a status of 500 or above, expected or not?
SELECT count(*) FROM requests WHERE session_id = $session_id AND http_status >= 500
