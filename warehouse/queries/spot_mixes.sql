-- All Spot, all on demand, or a mix: what does each serve and cost, and how much of that hangs on the rate of reclaims?
SELECT
    lab, variant, target, pace, provenance, time_scale, scenario,
    round(served_share, 5) AS served_share,
    round(served_share_low, 5) AS at_least,
    round(worst_hour_share, 4) AS worst_hour,
    round(minutes_below_capacity, 1) AS minutes_below_capacity_a_month,
    round(usd_per_hour, 4) AS usd_per_hour,
    round(usd_per_1k_output_tokens, 6) AS usd_per_1k_output_tokens
FROM capacity_results
SEMI JOIN latest_run USING (session_id)
ORDER BY lab, target, pace, session_id, step, position;
