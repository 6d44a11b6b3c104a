-- What is missing from a run's numbers, and why? One row per measure and stage (stage NULL: the whole session).
CREATE VIEW metric_gaps AS
WITH discarded AS (
    -- Why the requests of a stage don't count, the commonest reasons first.
    SELECT session_id, step, stage, string_agg(reason || ' (' || requests || ')', ', ' ORDER BY requests DESC, reason)
        AS reasons
    FROM (
        SELECT session_id, step, stage, unnest(invalid_reasons) AS reason, count(*) AS requests
        FROM requests
        WHERE NOT valid
        GROUP BY session_id, step, stage, reason
    )
    GROUP BY session_id, step, stage
)
SELECT
    m.lab, m.variant, m.trial, m.target, m.engine, m.provenance, m.pace, m.time_scale, m.run_id, m.session_id,
    m.step, m.stage, m.users, s.profile, s.load,
    m.measure, m.unit, m.gap_reason AS reason, m.promql
FROM metric_summaries AS m
LEFT JOIN stage_table AS s USING (session_id, step, stage)
WHERE m.status = 'gap'
UNION ALL BY NAME
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id,
    s.step, s.stage, s.users, s.profile, s.load,
    CASE s.request_kind WHEN 'http' THEN 'latency' ELSE 'ttft' END AS measure,
    's' AS unit,
    'no valid request began and ended in the stage: ' || coalesce(d.reasons, 'none was sent') AS reason
FROM stage_table AS s
LEFT JOIN discarded AS d USING (session_id, step, stage)
WHERE CASE s.request_kind WHEN 'http' THEN s.e2e_p50_s ELSE s.ttft_p50_s END IS NULL
UNION ALL BY NAME
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, step, stage, users,
    'usd' AS measure,
    'USD' AS unit,
    'no price is known for the machine' AS reason
FROM sheet_current
WHERE stage IS NULL AND usd IS NULL;
