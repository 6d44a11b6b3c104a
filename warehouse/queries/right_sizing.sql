-- Which GPU for which kind of work? From all rows of the labs L06 to L24 on one target at a time: the cheapest way to
-- serve each model, for interactive work (p95 TTFT within 2 s and 80 ms per token, in the median) and for batches.
WITH newest AS (
    SELECT lab, target, arg_max(run_id, recorded_at) AS run_id FROM stack_sessions
    WHERE lab BETWEEN 'L06' AND 'L24' AND run_id NOT IN (SELECT run_id FROM run_marks) GROUP BY lab, target
),
ways AS (
    SELECT
        t.target, t.provenance, s.model, s.sku, t.lab, t.variant, t.step, t.load,
        t.output_tokens_per_s, t.ttft_p95_s, t.tpot_p50_s, t.usd_per_1k_output_tokens AS usd,
        t.ttft_p95_s <= 2.0 AND t.tpot_p50_s <= 0.080 AS interactive
    FROM stage_table AS t
    JOIN newest USING (lab, target, run_id)
    SEMI JOIN run_sessions USING (session_id)
    JOIN (SELECT DISTINCT session_id, model, sku FROM stack_sessions) AS s USING (session_id)
    WHERE t.usd_per_1k_output_tokens IS NOT NULL
),
classes AS (
    SELECT 'interactive' AS class, * FROM ways WHERE interactive
    UNION ALL BY NAME
    SELECT 'batch' AS class, * FROM ways
)
SELECT
    target, provenance, class, model, sku, lab, variant, step, load,
    round(output_tokens_per_s, 1) AS output_tokens_per_s,
    round(ttft_p95_s, 3) AS ttft_p95_s,
    round(usd, 6) AS usd_per_1k_output_tokens
FROM classes
QUALIFY row_number() OVER (PARTITION BY target, class, model, sku ORDER BY usd, lab, variant) = 1
ORDER BY target, class, model, usd;
