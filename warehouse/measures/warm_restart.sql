-- How long did a restart take to its first token on a node that was already warm, in stack seconds?
SELECT sum(duration_s) FROM events
WHERE session_id = $session_id AND kind = 'cold_start' AND detail IS NOT NULL
