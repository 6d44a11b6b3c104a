-- Which share of the stack's own cold start was over when the engine's process began: node, driver and image?
SELECT
    coalesce(sum(duration_s) FILTER (name IN ('node_ready', 'driver_ready', 'image_pulled')), 0) / sum(duration_s)
FROM events
WHERE session_id = $session_id AND kind = 'cold_start' AND detail IS NULL
