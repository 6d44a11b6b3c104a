-- Which share of the cold start is left when node, driver and image are there already?
SELECT sum(duration_s) FILTER (detail IS NOT NULL) / sum(duration_s) FILTER (detail IS NULL)
FROM events
WHERE session_id = $session_id AND kind = 'cold_start'
