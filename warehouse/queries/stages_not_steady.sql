-- Which load stages were not in a steady state, so that their averages depend on when one looked? Those of the latest runs.
SELECT
    lab, variant, target, pace, provenance, time_scale, step, load, quantity,
    state, round(drift, 3) AS drift, round(value, 4) AS value, round(low, 4) AS low, round(high, 4) AS high, unit, n,
    left_out, steady_state AS said_of_the_whole_latency
FROM stage_intervals
SEMI JOIN latest_run USING (session_id)
WHERE state IN ('trend', 'level_shift') AND quantity IN ('throughput', 'ttft_p50', 'tpot_p50', 'e2e_p50')
ORDER BY abs(drift) DESC NULLS LAST, lab, variant, step, stage, quantity;
