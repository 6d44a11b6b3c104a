-- How sure is each number that the tables of load steps open with, and was the stage steady? One row per stage and quantity
-- of the shown sessions; none where stage_table doesn't know the number any more.
SELECT
    run_id, lab, target, session_id, variant, step, stage, quantity, value, low, high, n, n_effective, left_out, reason,
    state, drift, stage_state, stage_drift
FROM stage_intervals
SEMI JOIN latest_run USING (session_id)
WHERE quantity IN ('throughput', 'ttft_p50', 'ttft_p95', 'e2e_p50', 'e2e_p95') AND of_all IS NOT NULL
ORDER BY session_id, step, stage, quantity;
