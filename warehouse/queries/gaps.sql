-- Which numbers are missing from the latest runs, and why?
SELECT lab, variant, target, pace, measure, count(*) AS stages, any_value(reason) AS reason
FROM metric_gaps
SEMI JOIN latest_run USING (session_id)
GROUP BY lab, variant, target, pace, measure, reason
ORDER BY lab, variant, target, pace, measure;
