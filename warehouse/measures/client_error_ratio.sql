-- What share of the answers that clients saw in a stage had a status of 500 or above, expected or not?
SELECT avg((http_status >= 500)::INTEGER) FROM requests
WHERE session_id = $session_id AND step = $step AND http_status IS NOT NULL AND finished_at BETWEEN $start AND $end
