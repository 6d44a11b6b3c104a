-- Which run speaks for a lab today? The newest run with load stages, for each lab, variant, target, pace and engine.
-- The engine and the provenance belong to the key: a modelled run must not push a measured one out of sight.
CREATE VIEW latest_run AS
SELECT
    lab, variant, target, pace, time_scale, engine, provenance,
    arg_max(run_id, started_at) AS run_id,
    arg_max(session_id, started_at) AS session_id,
    max(started_at) AS started_at
FROM load_stages
GROUP BY lab, variant, target, pace, time_scale, engine, provenance;
