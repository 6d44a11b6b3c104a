-- How much throughput does each doubling of users buy, and what does it do to TTFT?
SELECT
    lab, variant, target, pace, provenance, time_scale, users,
    round(output_tokens_per_s, 1) AS output_tokens_per_s,
    round(output_tokens_per_s / lag(output_tokens_per_s) OVER ladder, 2) AS times_the_stage_before,
    round(ttft_p50_s, 3) AS ttft_p50_s,
    round(ttft_p50_s / lag(ttft_p50_s) OVER ladder, 2) AS ttft_times_the_stage_before
FROM stage_table
SEMI JOIN latest_run USING (session_id)
WHERE profile = 'ramp' AND request_kind = 'completion'
WINDOW ladder AS (PARTITION BY session_id, step ORDER BY stage)
ORDER BY lab, variant, target, pace, step, stage;
