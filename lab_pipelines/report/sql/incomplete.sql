-- Which rows lack the rows that they belong to? A session wrote them in one go, so that a file was lost, or a run was killed
-- between two of them. One row per lab, place and what is missing; `run_id` is the newest run concerned.
WITH sessions AS (SELECT DISTINCT session_id FROM stack_sessions),
stages AS (SELECT DISTINCT session_id, step, stage FROM load_stages),
sent AS (SELECT session_id, step, stage, count(*) FILTER (in_stage) AS requests FROM requests GROUP BY ALL),
found AS (
    SELECT target, provenance, lab, run_id, recorded_at, 'load stages' AS has, 'the session that served them' AS lacks
    FROM load_stages ANTI JOIN sessions USING (session_id)
    UNION ALL
    SELECT target, provenance, lab, run_id, recorded_at, 'costs', 'the session that they are of'
    FROM cost_records ANTI JOIN sessions USING (session_id)
    UNION ALL
    SELECT target, provenance, lab, run_id, recorded_at, 'findings', 'the session that they were judged on'
    FROM findings ANTI JOIN sessions USING (session_id)
    UNION ALL
    SELECT target, provenance, lab, run_id, recorded_at, 'requests', 'the load stage that they were sent in'
    FROM (
        SELECT target, provenance, lab, run_id, session_id, step, stage, max(recorded_at) AS recorded_at
        FROM requests
        GROUP BY target, provenance, lab, run_id, session_id, step, stage
    )
    ANTI JOIN stages USING (session_id, step, stage)
    UNION ALL
    SELECT target, provenance, lab, run_id, recorded_at, 'load stages', 'the requests that they counted'
    FROM load_stages
    LEFT JOIN sent USING (session_id, step, stage)
    WHERE requests_in_stage > 0 AND coalesce(sent.requests, 0) = 0
    UNION ALL
    SELECT target, provenance, lab, run_id, recorded_at, 'load stages', 'the costs of their session'
    FROM load_stages ANTI JOIN cost_records USING (session_id)
)
SELECT
    target, provenance, lab, has, lacks,
    count(*) AS lacking, arg_max(run_id, (recorded_at, run_id)) AS run_id
FROM found
GROUP BY target, provenance, lab, has, lacks
ORDER BY target, provenance, lab, has, lacks;
