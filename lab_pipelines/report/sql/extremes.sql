-- What were the best and the worst of the year, in each place, measured and modelled apart? One row per superlative, of the
-- runs that speak for their lab, without stages whose client was over its error budget.
WITH stages AS (
    SELECT * FROM stage_table SEMI JOIN latest_run USING (session_id) WHERE client_fault IS NULL
),
found AS (
    SELECT
        target, provenance, 1 AS position, 'fastest' AS superlative, 'tokens/s' AS unit,
        max(output_tokens_per_s) AS value,
        arg_max({'lab': lab, 'variant': variant, 'load': load}, output_tokens_per_s) AS place
    FROM stages
    GROUP BY target, provenance
    UNION ALL
    SELECT
        target, provenance, 2, 'cheapest 1K tokens', 'USD',
        min(usd_per_1k_tokens),
        arg_min({'lab': lab, 'variant': variant, 'load': load}, usd_per_1k_tokens)
    FROM stages
    GROUP BY target, provenance
    UNION ALL
    SELECT
        target, provenance, 3, 'dearest 1K tokens', 'USD',
        max(usd_per_1k_tokens),
        arg_max({'lab': lab, 'variant': variant, 'load': load}, usd_per_1k_tokens)
    FROM stages
    GROUP BY target, provenance
    UNION ALL
    SELECT
        target, provenance, 4, 'slowest median TTFT', 's',
        max(ttft_p50_s),
        arg_max({'lab': lab, 'variant': variant, 'load': load}, ttft_p50_s)
    FROM stages
    GROUP BY target, provenance
    UNION ALL
    SELECT
        target, provenance, 5, 'highest error rate', '%',
        nullif(max(error_rate), 0) * 100,
        arg_max({'lab': lab, 'variant': variant, 'load': load}, error_rate)
    FROM stages
    GROUP BY target, provenance
)
SELECT target, provenance, superlative, unit, value, place.lab AS lab, place.variant AS variant, place.load AS load
FROM found
WHERE value IS NOT NULL
ORDER BY target, provenance, position;
