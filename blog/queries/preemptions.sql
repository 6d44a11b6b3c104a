-- What does memory pressure do to requests at one load of a lab: preemptions, and how long those took that were
-- preempted?
WITH told AS (
    SELECT
        session_id, step, stage,
        any_value(value) FILTER (measure = 'e2e_p50_preempted') AS preempted_s,
        any_value(value) FILTER (measure = 'e2e_p50_not_preempted') AS not_preempted_s
    FROM metric_summaries
    GROUP BY session_id, step, stage
)
SELECT
    s.variant AS "variant",
    s.load AS "load",
    s.preemptions AS "preemptions",
    s.output_tokens_per_s AS "output tokens/s",
    s.ttft_p50_s AS "TTFT p50, s",
    t.preempted_s AS "whole answer p50, preempted, s",
    t.not_preempted_s AS "not preempted, s",
    s.lab, s.target, s.provenance, s.pace, s.time_scale, s.engine, s.model_range,
    s.run_id, r.recorded_at
FROM stage_table AS s
JOIN latest_run AS r USING (session_id)
LEFT JOIN told AS t ON t.session_id = s.session_id AND t.step = s.step AND t.stage = s.stage
WHERE s.target = $target AND s.lab = $lab AND coalesce(s.users, s.offered_per_s) = $load
ORDER BY s.provenance, s.variant, s.step, s.pace, s.engine;
