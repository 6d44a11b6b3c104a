-- Which sessions does the report show? The newest of each lab, variant, target, pace and engine.
SELECT * FROM run_overview
WHERE latest
ORDER BY lab, target, started_at DESC, session_id;
