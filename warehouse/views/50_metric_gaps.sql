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
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, step, stage, users,
    measure, unit, gap_reason AS reason, promql
FROM metric_summaries
WHERE status = 'gap'
UNION ALL BY NAME
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id,
    s.step, s.stage, s.users,
    'ttft' AS measure,
    's' AS unit,
    'no valid request began and ended in the stage: ' || coalesce(d.reasons, 'none was sent') AS reason
FROM stage_table AS s
LEFT JOIN discarded AS d USING (session_id, step, stage)
WHERE s.ttft_p50_s IS NULL
UNION ALL BY NAME
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, step, stage, users,
    'usd' AS measure,
    'USD' AS unit,
    'no price is known for the machine' AS reason
FROM finops_sheet
WHERE stage IS NULL AND usd IS NULL;
