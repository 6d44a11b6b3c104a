-- What did each load of one step give, by the newest run of a variant? Latencies in stack seconds; NULL is unknown.
SELECT
    s.load AS "load",
    s.requests AS "requests",
    s.output_tokens_per_s AS "output tokens/s",
    s.ttft_p50_s AS "TTFT p50, s",
    s.ttft_p95_s AS "TTFT p95, s",
    s.itl_p50_s * 1000 AS "ITL p50, ms",
    s.queue_depth AS "waiting",
    s.kv_cache_usage * 100 AS "KV cache in use, %",
    s.lab, s.target, s.provenance, s.pace, s.time_scale, s.engine, s.model_range,
    s.run_id, r.recorded_at
FROM stage_table AS s
JOIN latest_run AS r USING (session_id)
WHERE s.target = $target AND s.lab = $lab AND s.variant = $variant AND s.step = $step
ORDER BY s.provenance, s.pace, s.engine, s.stage;
