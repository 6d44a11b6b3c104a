-- How many times as many tokens/s is a KV block worth from 0.70 to 0.85 of the memory as one from 0.85 to 0.95, at 32
-- users? NULL where the second step gains nothing, since the ratio then has no value.
WITH blocks AS (
    SELECT variant, max((line ->> '$.kv_blocks')::DOUBLE) AS n FROM log_lines
    WHERE run_id = $run_id AND event = 'serving' GROUP BY variant
),
speed AS (
    SELECT variant, output_tokens / duration_s AS tokens_per_s FROM load_stages WHERE run_id = $run_id AND users = 32
),
points AS (SELECT * FROM blocks JOIN speed USING (variant)),
steps AS (
    SELECT
        (b.tokens_per_s - a.tokens_per_s) / (b.n - a.n) AS first_gain,
        (c.tokens_per_s - b.tokens_per_s) / (c.n - b.n) AS second_gain
    FROM points AS a, points AS b, points AS c
    WHERE a.variant = 'gmu-0.70' AND b.variant = 'gmu-0.85' AND c.variant = 'gmu-0.95'
)
SELECT CASE WHEN second_gain > 0 THEN first_gain / second_gain END FROM steps
