-- Which stages have no valid request, because the load generator was over its own error budget in them, and by what?
-- A `token_mismatch` is a fault of single requests, and of no stage.
CREATE VIEW client_faults AS
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, step, stage,
    string_agg(reason, '; ' ORDER BY quantity) AS client_fault
FROM client_errors
WHERE NOT within AND quantity <> 'token_mismatch'
GROUP BY lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, step, stage;
