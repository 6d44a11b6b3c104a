-- How long did the stack's first engine take for its weights, in stack seconds?
SELECT sum(duration_s) FROM events
WHERE session_id = $session_id AND kind = 'cold_start' AND name = 'model_loaded' AND detail IS NULL
