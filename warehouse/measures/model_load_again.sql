-- How long did a later pod of the same engine take for its weights, in stack seconds?
SELECT sum(duration_s) FROM events
WHERE session_id = $session_id AND kind = 'cold_start' AND name = 'model_loaded' AND detail IS NOT NULL
