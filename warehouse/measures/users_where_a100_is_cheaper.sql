-- From how many users on is a token of the A100 cheaper than one of the T4? NULL: nowhere on this ramp.
-- 6.983 is the ratio of the nodes' on-demand prices in eastus (lab_pipelines/catalog/prices.yaml): 3.673 over 0.526 USD.
WITH speed AS (
    SELECT users, variant, output_tokens / duration_s AS tokens_per_s
    FROM load_stages SEMI JOIN run_sessions USING (session_id)
    WHERE run_id = $run_id
)
SELECT min(t.users)::DOUBLE
FROM speed AS t JOIN speed AS a USING (users)
WHERE t.variant = 't4' AND a.variant = 'a100' AND a.tokens_per_s > 6.983 * t.tokens_per_s
