-- Which runs were cut on $target since $since, and is anything of them left to be settled? One row per run. `unsettled`: a
-- session that nobody has closed, or that has no estimate of its cost.
WITH cut AS (
    SELECT lab, run_id, max(recorded_at) AS cut_at, any_value(provenance) AS provenance
    FROM run_marks
    WHERE target = $target AND mark = 'cut' AND recorded_at >= $since
    GROUP BY lab, run_id
),
sessions AS (
    SELECT
        run_id, session_id, bool_or(state = 'closed')
            AND session_id IN (SELECT session_id FROM cost_records WHERE x_state = 'estimated') AS settled
    FROM stack_sessions
    WHERE run_id IN (SELECT run_id FROM cut)
    GROUP BY run_id, session_id
)
SELECT cut.*, NOT coalesce(bool_and(sessions.settled), true) AS unsettled
FROM cut
LEFT JOIN sessions USING (run_id)
GROUP BY ALL
ORDER BY cut_at;
