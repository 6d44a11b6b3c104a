-- How did each step of a run end, and how long did it take? `$run_id` is the Dagster run's.
SELECT lab, target, engine, provenance, pace, time_scale, kind, name, outcome, duration_s
FROM events
WHERE run_id = $run_id AND kind NOT IN ('cold_start', 'milestone', 'lease', 'release')
ORDER BY started_at;
