-- What is missing from the shown sessions? One row per measure and reason, with the users of the stages concerned.
SELECT session_id, measure, reason, list(users ORDER BY step, stage) FILTER (users IS NOT NULL) AS users
FROM metric_gaps
SEMI JOIN latest_run USING (session_id)
GROUP BY session_id, measure, reason
ORDER BY session_id, measure, reason;
