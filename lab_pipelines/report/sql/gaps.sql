-- What is missing from the shown sessions? One row per measure and reason, with the loads of the stages concerned.
SELECT
    session_id, measure, reason,
    list(users ORDER BY step, stage) FILTER (users IS NOT NULL AND profile IS DISTINCT FROM 'burst') AS users,
    list(load ORDER BY step, stage) FILTER (profile IN ('burst', 'rate')) AS loads
FROM metric_gaps
SEMI JOIN latest_run USING (session_id)
GROUP BY session_id, measure, reason
ORDER BY session_id, measure, reason;
