-- How many times as many tokens/s is a KV block worth from 0.70 to 0.85 of the memory as one from 0.85 to 0.95, at 32
-- users? NULL where the second step gains nothing, since the ratio then has no value.
WITH points AS (
    SELECT s.variant, s.output_tokens / s.duration_s AS tokens_per_s, m.value AS blocks
    FROM load_stages AS s
    JOIN metric_summaries AS m USING (session_id, step, stage)
    SEMI JOIN run_sessions USING (session_id)
    ANTI JOIN client_faults USING (session_id, step, stage)
    WHERE s.run_id = $run_id AND s.users = 32 AND m.measure = 'kv_blocks'
),
gains AS (
    SELECT
        (b.tokens_per_s - a.tokens_per_s) / (b.blocks - a.blocks) AS first_gain,
        (c.tokens_per_s - b.tokens_per_s) / (c.blocks - b.blocks) AS second_gain
    FROM points AS a, points AS b, points AS c
    WHERE a.variant = 'gmu-0.70' AND b.variant = 'gmu-0.85' AND c.variant = 'gmu-0.95'
)
SELECT CASE WHEN second_gain > 0 THEN first_gain / second_gain END FROM gains
