-- How many users can be served with a p95 TTFT of at most 2 s?
-- Of closed loops: at a rate nobody is a user. `p95_supported` is false where fewer than 72 requests stand behind the p95.
SELECT
    lab, variant, target, pace, engine, provenance, time_scale,
    max(users) AS users,
    arg_max(round(ttft_p95_s, 3), users) AS ttft_p95_s,
    arg_max(ttft_p95_supported, users) AS p95_supported,
    arg_max(round(output_tokens_per_s, 1), users) AS output_tokens_per_s
FROM stage_table
SEMI JOIN latest_run USING (session_id)
WHERE ttft_p95_s <= 2 AND users IS NOT NULL AND profile <> 'burst'
GROUP BY lab, variant, target, pace, engine, provenance, time_scale
ORDER BY lab, variant, target, pace;
