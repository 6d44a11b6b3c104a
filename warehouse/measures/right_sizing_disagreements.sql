-- In how many cells does the rule name the dearer node? A cell is a class of work, its load, and a model's size.
-- The rule was written before the runs: interactive work below one request a second, and a batch on a small model,
-- belong on a T4; the rest on an A100. Cheaper is the node with more work per dollar: requests within the objective for
-- interactive work, output tokens for a batch. 6.983 is the ratio of the nodes' prices, 3.673 over 0.526 USD (prices.yaml).
WITH work AS (
    SELECT
        split_part(s.variant, '-', 1) AS gpu,
        split_part(s.variant, '-', 2) AS model,
        s.step AS class,
        coalesce(s.offered_per_s, s.users) AS load,
        CASE s.step
            WHEN 'batch' THEN any_value(s.output_tokens) / any_value(s.duration_s)
            ELSE count(*) FILTER (r.ttft_s <= 2.0 AND coalesce(r.tpot_s, 0) <= 0.080) / any_value(s.duration_s)
        END AS done_per_s
    FROM load_stages AS s
    JOIN requests AS r USING (session_id, step, stage)
    SEMI JOIN run_sessions USING (session_id)
    WHERE s.run_id = $run_id AND r.in_stage AND r.outcome = 'ok'
    GROUP BY s.variant, s.step, s.stage, s.offered_per_s, s.users
),
cells AS (
    SELECT
        t.class, t.model, t.load,
        CASE WHEN a.done_per_s > 6.983 * t.done_per_s THEN 'a100' ELSE 't4' END AS cheaper,
        CASE WHEN (t.class = 'interactive' AND t.load < 1.0) OR (t.class = 'batch' AND t.model = 'small')
            THEN 't4' ELSE 'a100' END AS by_rule
    FROM work AS t JOIN work AS a USING (class, model, load)
    WHERE t.gpu = 't4' AND a.gpu = 'a100'
)
SELECT count(*) FILTER (cheaper <> by_rule)::DOUBLE FROM cells
