-- From how many users on is a token of the A100 cheaper than one of the T4? NULL: nowhere on this ramp, or the client was
-- over its error budget in a stage below.
-- 6.983 is the ratio of the nodes' on-demand prices in eastus (lab_pipelines/catalog/prices.yaml): 3.673 over 0.526 USD.
WITH speed AS (
    SELECT s.users, s.variant, CASE WHEN f.client_fault IS NULL THEN s.output_tokens / s.duration_s END AS tokens_per_s
    FROM load_stages AS s
    SEMI JOIN run_sessions AS r ON r.session_id = s.session_id
    LEFT JOIN client_faults AS f ON f.session_id = s.session_id AND f.step = s.step AND f.stage = s.stage
    WHERE s.run_id = $run_id
),
points AS (
    SELECT t.users, a.tokens_per_s > 6.983 * t.tokens_per_s AS cheaper
    FROM speed AS t JOIN speed AS a USING (users)
    WHERE t.variant = 't4' AND a.variant = 'a100'
),
found AS (
    SELECT min(users) FILTER (cheaper) AS users, min(users) FILTER (cheaper IS NULL) AS unknown FROM points
)
SELECT CASE WHEN unknown IS NULL OR unknown > users THEN users END::DOUBLE FROM found
