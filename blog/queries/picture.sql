-- From which stages is the picture $figure of a lab's spec drawn? Those of the lab's newest run on a target.
WITH newest AS (
    SELECT run_id, max(recorded_at) AS recorded_at
    FROM latest_run
    WHERE target = $target AND lab = $lab
    GROUP BY run_id
    ORDER BY recorded_at DESC, run_id
    LIMIT 1
)
SELECT
    $figure AS figure, variant, step, load, output_tokens_per_s, ttft_p50_s, ttft_p95_s, itl_p50_s, tpot_p50_s,
    e2e_p50_s, kv_cache_usage, preemptions, usd_per_1k_output_tokens,
    lab, target, provenance, pace, time_scale, engine, model_range, run_id, newest.recorded_at
FROM stage_table
SEMI JOIN latest_run USING (session_id)
JOIN newest USING (run_id)
ORDER BY variant, step, stage;
