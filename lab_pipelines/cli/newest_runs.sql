-- What came of each lab's newest run on each target?
WITH sessions AS (
    SELECT
        session_id, lab, target, run_id, variant, pace, engine, provenance, time_scale, requested_at,
        bool_or(state = 'closed') AS released
    FROM stack_sessions
    GROUP BY ALL
),
newest AS (
    SELECT * FROM sessions
    QUALIFY row_number() OVER (PARTITION BY lab, target ORDER BY requested_at DESC, session_id) = 1
),
verdicts AS (
    SELECT
        session_id,
        count(*) FILTER (verdict = 'confirmed') AS confirmed,
        count(*) FILTER (verdict = 'refuted') AS refuted,
        count(*) FILTER (verdict = 'inconclusive') AS inconclusive
    FROM findings
    GROUP BY session_id
),
steps AS (
    SELECT session_id, count(*) FILTER (outcome = 'failed') AS failed_steps
    FROM events
    GROUP BY session_id
)
SELECT
    newest.*,
    EXISTS (FROM finops_sheet AS f WHERE f.session_id = newest.session_id) AS finished,
    coalesce(confirmed, 0) AS confirmed,
    coalesce(refuted, 0) AS refuted,
    coalesce(inconclusive, 0) AS inconclusive,
    coalesce(failed_steps, 0) AS failed_steps
FROM newest
LEFT JOIN verdicts USING (session_id)
LEFT JOIN steps USING (session_id)
ORDER BY lab, target;
