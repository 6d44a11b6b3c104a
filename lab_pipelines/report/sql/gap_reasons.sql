-- Which numbers are missing from the year, and why? One row per measure and reason, of the runs that speak for their lab.
SELECT
    target, provenance, measure, reason,
    list_sort(list(DISTINCT lab)) AS labs,
    count(DISTINCT session_id) AS sessions
FROM metric_gaps
SEMI JOIN latest_run USING (session_id)
GROUP BY target, provenance, measure, reason
ORDER BY target, provenance, sessions DESC, measure, reason;
