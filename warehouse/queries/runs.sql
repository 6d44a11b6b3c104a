-- Which runs are in the warehouse, newest first, and which one speaks for its lab?
SELECT
    lab, variant, target, pace, engine, provenance, time_scale, latest, recorded_at, started_at,
    users_max, offered_per_s_max, requests,
    round(output_tokens_per_s_max, 1) AS output_tokens_per_s_max, round(usd, 6) AS usd,
    measures_with_gaps, refusal, run_id
FROM run_overview
ORDER BY recorded_at DESC, run_id, position;
