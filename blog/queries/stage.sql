-- What did one stage of a lab give: $quantity of $variant at the load $load (users, requests of a burst, or
-- requests/s)? Of the newest run of that variant; a measured one comes before a modelled one.
SELECT
    CASE $quantity
        WHEN 'output_tokens_per_s' THEN s.output_tokens_per_s
        WHEN 'ttft_p50_s' THEN s.ttft_p50_s
        WHEN 'ttft_p95_s' THEN s.ttft_p95_s
        WHEN 'itl_p50_s' THEN s.itl_p50_s
        WHEN 'tpot_p50_s' THEN s.tpot_p50_s
        WHEN 'e2e_p50_s' THEN s.e2e_p50_s
        WHEN 'kv_cache_usage' THEN s.kv_cache_usage
        WHEN 'preemptions' THEN s.preemptions
        WHEN 'usd_per_1k_output_tokens' THEN s.usd_per_1k_output_tokens
    END AS value,
    CASE
        WHEN $quantity = 'output_tokens_per_s' THEN 'tokens/s'
        WHEN $quantity = 'usd_per_1k_output_tokens' THEN 'USD'
        WHEN $quantity = 'kv_cache_usage' THEN 'share'
        WHEN $quantity = 'preemptions' THEN 'count'
        ELSE 's'
    END AS unit,
    'the stage has no such number' AS gap,
    s.lab, s.target, s.provenance, s.pace, s.time_scale, s.engine, s.model_range,
    s.run_id, r.recorded_at,
    -- The interval is of the stage without its warm-up; where there was one it isn't this number's.
    CASE WHEN i.left_out = 0 THEN i.low END AS low,
    CASE WHEN i.left_out = 0 THEN i.high END AS high
FROM stage_table AS s
JOIN latest_run AS r USING (session_id)
LEFT JOIN stage_statistics AS i
    ON i.session_id = s.session_id AND i.step = s.step AND i.stage = s.stage
    AND i.quantity = CASE $quantity
        WHEN 'output_tokens_per_s' THEN 'throughput'
        ELSE regexp_replace($quantity, '_s$', '')
    END
WHERE s.target = $target AND s.lab = $lab AND s.variant = $variant AND s.step = $step
    AND coalesce(s.users, s.offered_per_s) = $load
QUALIFY row_number() OVER (ORDER BY (s.provenance = 'measured') DESC, r.recorded_at DESC, s.run_id, s.stage) = 1;
