-- What came of each lab's newest run on each target, all its variants and turns together?
-- Newest by when it was recorded: a rehearsal's own clock shows the lab's date.
WITH sessions AS (
    SELECT
        session_id, lab, target, run_id, variant, trial, pace, engine, provenance, time_scale, requested_at,
        max(recorded_at) AS recorded_at,
        bool_or(state = 'closed') AS released
    FROM stack_sessions
    GROUP BY ALL
),
runs AS (
    SELECT
        lab, target, run_id, pace, engine, provenance, time_scale,
        list(variant ORDER BY requested_at) FILTER (trial = 1) AS variants,
        max(trial) AS turns,
        min(requested_at) AS requested_at,
        max(recorded_at) AS recorded_at,
        bool_and(released) AS released
    FROM sessions
    GROUP BY lab, target, run_id, pace, engine, provenance, time_scale
),
newest AS (
    SELECT * FROM runs
    QUALIFY row_number() OVER (PARTITION BY lab, target ORDER BY recorded_at DESC, requested_at DESC, run_id) = 1
),
verdicts AS (
    SELECT
        lab, target, run_id,
        count(*) FILTER (verdict = 'confirmed') AS confirmed,
        count(*) FILTER (verdict = 'refuted') AS refuted,
        count(*) FILTER (verdict = 'inconclusive') AS inconclusive
    FROM findings
    GROUP BY lab, target, run_id
),
steps AS (
    SELECT lab, target, run_id, count(*) FILTER (outcome = 'failed') AS failed_steps
    FROM events
    GROUP BY lab, target, run_id
)
SELECT
    newest.*,
    EXISTS (
        FROM finops_sheet AS f
        WHERE f.run_id = newest.run_id AND f.lab = newest.lab AND f.target = newest.target
    ) AS finished,
    coalesce(confirmed, 0) AS confirmed,
    coalesce(refuted, 0) AS refuted,
    coalesce(inconclusive, 0) AS inconclusive,
    coalesce(failed_steps, 0) AS failed_steps
FROM newest
LEFT JOIN verdicts USING (lab, target, run_id)
LEFT JOIN steps USING (lab, target, run_id)
ORDER BY lab, target;
