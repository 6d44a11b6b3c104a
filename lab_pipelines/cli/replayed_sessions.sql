-- Which closed sessions of a target had a machine with a known type, and an engine that came up?
SELECT session_id, lab, variant, run_id, provenance, time_scale, sku, nodes, ready_at, released_at, cold_start_s
FROM stack_sessions
WHERE target = $target AND state = 'closed' AND sku IS NOT NULL AND nodes > 0 AND refusal IS NULL
ORDER BY recorded_at, ready_at
