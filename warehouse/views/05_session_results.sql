-- Which sessions have something to tell? Those that served load, were refused by the engine, or had a claim tested.
-- One row per session. `recorded_at` is when its rows were last written, by the wall clock; `started_at` is on the
-- stack's own clock, which a rehearsal sets to the lab's date. So across runs "newest" goes by recorded_at alone.
-- `invalid_reason`: why the run must not speak for its lab (run_marks); NULL where it may.
CREATE VIEW session_results AS
WITH told AS (
    SELECT
        lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
        started_at, recorded_at
    FROM load_stages
    UNION ALL BY NAME
    SELECT
        lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
        requested_at AS started_at, recorded_at
    FROM stack_sessions
    WHERE refusal IS NOT NULL
    UNION ALL BY NAME
    SELECT
        f.lab, f.variant, f.trial, f.target, f.engine, f.provenance, f.pace, f.time_scale, f.run_id, f.session_id,
        s.requested_at AS started_at, f.recorded_at
    FROM findings AS f
    JOIN stack_sessions AS s USING (session_id)
)
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
    min(started_at) AS started_at,
    max(recorded_at) AS recorded_at,
    (SELECT max(m.reason) FROM run_marks AS m WHERE m.run_id = told.run_id AND m.mark = 'cut') AS invalid_reason
FROM told
GROUP BY lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id;
