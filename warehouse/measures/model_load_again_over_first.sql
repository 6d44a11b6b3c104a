-- Which share of the first model load is left when a later pod loads the same weights?
SELECT sum(duration_s) FILTER (detail IS NOT NULL) / sum(duration_s) FILTER (detail IS NULL) FROM events
WHERE session_id = $session_id AND kind = 'cold_start' AND name = 'model_loaded'
