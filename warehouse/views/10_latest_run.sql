-- Which session speaks for a variant today? That of the newest run with results, for each lab, variant, target, pace and
-- engine. The engine and the provenance belong to the key: a modelled run must not push a measured one out of sight. A
-- variant that was refused speaks too: that it does not come up is its result. A run that is marked invalid doesn't.
-- Of a run of several `turns` the last one speaks (run_sessions); what it cost is the cost of all its sessions.
CREATE VIEW latest_run AS
SELECT
    lab, variant, target, pace, time_scale, engine, provenance, run_id, session_id, started_at, recorded_at, trial, turns
FROM run_sessions
WHERE invalid_reason IS NULL
QUALIFY row_number() OVER (
    PARTITION BY lab, variant, target, pace, time_scale, engine, provenance
    ORDER BY recorded_at DESC, run_id, session_id
) = 1;
