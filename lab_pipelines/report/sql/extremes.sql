-- What were the best and the worst of the year, in each place, measured and modelled apart? One row per superlative, of the
-- runs that speak for their lab, without stages whose client was over its error budget. Of equals the first lab's.
WITH asked(position, superlative, quantity, unit, shown_times, highest) AS (
    VALUES
        (1, 'fastest', 'output_tokens_per_s', 'tokens/s', 1, true),
        (2, 'cheapest 1K tokens', 'usd_per_1k_tokens', 'USD', 1, false),
        (3, 'dearest 1K tokens', 'usd_per_1k_tokens', 'USD', 1, true),
        (4, 'slowest median TTFT', 'ttft_p50_s', 's', 1, true),
        (5, 'highest error rate', 'error_rate', '%', 100, true)
),
numbers AS (
    UNPIVOT (
        SELECT
            target, provenance, lab, variant, load, session_id, step, stage,
            output_tokens_per_s::DOUBLE AS output_tokens_per_s, usd_per_1k_tokens::DOUBLE AS usd_per_1k_tokens,
            ttft_p50_s::DOUBLE AS ttft_p50_s, nullif(error_rate, 0)::DOUBLE AS error_rate
        FROM stage_table
        SEMI JOIN latest_run USING (session_id)
        WHERE client_fault IS NULL
    )
    ON output_tokens_per_s, usd_per_1k_tokens, ttft_p50_s, error_rate
    INTO NAME quantity VALUE number
)
SELECT target, provenance, superlative, unit, number * shown_times AS value, lab, variant, load
FROM asked
JOIN numbers USING (quantity)
QUALIFY row_number() OVER (
    PARTITION BY target, provenance, position
    ORDER BY CASE WHEN highest THEN -number ELSE number END, lab, variant, session_id, step, stage
) = 1
ORDER BY target, provenance, position;
