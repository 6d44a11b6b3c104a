-- What did the time from request to first token go into? One row per phase of a session's cold start, in stack time.
-- A phase that did not happen there has no row; an engine that was already running has none at all.
CREATE VIEW cold_start_timeline AS
WITH sessions AS (
    -- A session has an 'open' row, and a 'closed' one with the same phases once it was released.
    SELECT * FROM stack_sessions
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY state = 'closed' DESC, recorded_at DESC) = 1
),
phases AS (
    SELECT
        lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, requested_at,
        cold_start_s,
        unnest([1, 2, 3, 4, 5, 6]) AS position,
        unnest(['node_ready', 'driver_ready', 'image_pulled', 'model_loaded', 'engine_ready', 'first_token']) AS phase,
        unnest([node_ready_s, driver_ready_s, image_pulled_s, model_loaded_s, engine_ready_s, first_token_s])
            AS duration_s
    FROM sessions
)
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, requested_at,
    position,
    phase,
    -- Each phase begins where the last one that happened ended.
    sum(duration_s) OVER (PARTITION BY session_id ORDER BY position) - duration_s AS starts_at_s,
    duration_s,
    duration_s / nullif(cold_start_s, 0) AS share,
    cold_start_s
FROM phases
WHERE duration_s IS NOT NULL;
