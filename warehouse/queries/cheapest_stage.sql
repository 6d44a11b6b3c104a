-- Under which load is a token cheapest, and what does it cost there?
SELECT
    lab, variant, target, pace, provenance, time_scale,
    arg_min(load, usd_per_1k_tokens) AS load,
    min(usd_per_1k_tokens) AS usd_per_1k_tokens,
    arg_min(usd_per_1k_output_tokens, usd_per_1k_tokens) AS usd_per_1k_output_tokens,
    max(usd_per_1k_tokens) / min(usd_per_1k_tokens) AS dearest_to_cheapest
FROM stage_table
SEMI JOIN latest_run USING (session_id)
WHERE usd_per_1k_tokens IS NOT NULL
GROUP BY lab, variant, target, pace, provenance, time_scale
ORDER BY lab, variant, target, pace;
