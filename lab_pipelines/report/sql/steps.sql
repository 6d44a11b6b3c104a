-- How did each step of the shown sessions end, and how long did it take?
SELECT run_id, lab, target, session_id, variant, kind, name, outcome, duration_s FROM events
SEMI JOIN latest_run USING (session_id)
WHERE kind NOT IN ('cold_start', 'milestone', 'lease', 'release')
ORDER BY session_id, started_at;
