-- How many KV blocks does each variant of a lab have, and what does it make of them at one load? `kv_blocks` is the
-- lab's measure of that name; a variant that its engine refused has the engine's words instead.
WITH blocks AS (
    SELECT session_id, step, stage, any_value(value) AS kv_blocks
    FROM metric_summaries
    WHERE measure = 'kv_blocks'
    GROUP BY session_id, step, stage
),
sessions AS (
    SELECT session_id, max(refusal) AS refusal, max(model_range) AS model_range FROM stack_sessions GROUP BY session_id
)
SELECT
    r.variant AS "variant",
    CASE WHEN o.refusal IS NULL THEN 'yes' ELSE 'no' END AS "came up",
    b.kv_blocks::BIGINT AS "KV blocks",
    s.load AS "load",
    s.output_tokens_per_s AS "output tokens/s",
    s.ttft_p50_s AS "TTFT p50, s",
    s.itl_p50_s * 1000 AS "ITL p50, ms",
    r.lab, r.target, r.provenance, r.pace, r.time_scale, r.engine, o.model_range,
    r.run_id, r.recorded_at
FROM latest_run AS r
LEFT JOIN stage_table AS s
    ON s.session_id = r.session_id AND s.step = $step AND coalesce(s.users, s.offered_per_s) = $load
LEFT JOIN blocks AS b ON b.session_id = s.session_id AND b.step = s.step AND b.stage = s.stage
LEFT JOIN sessions AS o ON o.session_id = r.session_id
WHERE r.target = $target AND r.lab = $lab AND (s.session_id IS NOT NULL OR o.refusal IS NOT NULL)
ORDER BY r.provenance, b.kv_blocks NULLS LAST, r.variant, r.pace, r.engine;
