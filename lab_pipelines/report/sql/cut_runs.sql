-- Which runs were cut, and which were never seen to release what they held? One row per run.
WITH sessions AS (
    SELECT
        target, provenance, lab, run_id, session_id,
        min(requested_at) AS requested_at, max(recorded_at) AS recorded_at, bool_or(state = 'closed') AS closed
    FROM stack_sessions
    GROUP BY target, provenance, lab, run_id, session_id
),
cut AS (
    SELECT target, provenance, lab, run_id, recorded_at, reason, 'cut' AS ended FROM run_marks
),
open AS (
    SELECT
        target, provenance, lab, run_id, max(recorded_at) AS recorded_at,
        'the lake has no record that its stack was released: it is up, or its run was killed' AS reason, 'open' AS ended
    FROM sessions
    WHERE NOT closed
    GROUP BY target, provenance, lab, run_id
)
FROM cut
UNION ALL
FROM open
ORDER BY target, provenance, lab, recorded_at, run_id, ended;
