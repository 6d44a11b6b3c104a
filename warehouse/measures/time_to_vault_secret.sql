-- How long was it from applying the Job with identity and key vault to its end, in stack seconds?
SELECT duration_s FROM events WHERE session_id = $session_id AND kind = 'apply' AND name = 'token-in-volume'
