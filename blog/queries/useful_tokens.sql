-- What does a token cost at each load of a lab, and what does a useful one cost, whose request kept the latency
-- objective?
WITH useful AS (
    SELECT session_id, step, stage, any_value(value) AS useful_share
    FROM metric_summaries
    WHERE measure = 'useful_share'
    GROUP BY session_id, step, stage
)
SELECT
    s.variant AS "variant",
    s.load AS "load",
    s.output_tokens_per_s AS "output tokens/s",
    u.useful_share * 100 AS "useful, %",
    s.usd_per_1k_output_tokens AS "USD per 1K output tokens",
    f.usd_per_1k_useful_output_tokens AS "USD per 1K useful output tokens",
    s.lab, s.target, s.provenance, s.pace, s.time_scale, s.engine, s.model_range,
    s.run_id, r.recorded_at
FROM stage_table AS s
JOIN latest_run AS r USING (session_id)
LEFT JOIN useful AS u ON u.session_id = s.session_id AND u.step = s.step AND u.stage = s.stage
LEFT JOIN sheet_current AS f ON f.session_id = s.session_id AND f.step = s.step AND f.stage = s.stage
WHERE s.target = $target AND s.lab = $lab
ORDER BY s.provenance, s.variant DESC, s.pace, s.engine, s.stage;
