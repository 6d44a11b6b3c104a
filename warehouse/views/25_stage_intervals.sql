-- How sure is each number of a load stage, was the stage steady, and what was left out? One row per stage and quantity.
--
-- `low` to `high` is a 95 % interval of `value`; without one, `reason` says why. `of_all` is the same quantity over all valid
-- requests, as stage_table has it: it differs from `value` where a warm-up was found, of which `left_out` requests in the
-- first `warm_up_s` stack seconds are not in `value`. `state` is whether the quantity's own series was steady while it was
-- measured, `drift` its relative change; `stage_state` and `stage_drift` those of the requests' whole latency.
-- Stages from before intervals were kept have no row here.
CREATE VIEW stage_intervals AS
WITH whole AS (
    SELECT
        session_id, step, stage,
        any_value(value) FILTER (quantity = 'warm_up') AS warm_up_s,
        any_value(reason) FILTER (quantity = 'warm_up') AS warm_up,
        any_value(state) FILTER (quantity = 'steady_state') AS stage_state,
        any_value(drift) FILTER (quantity = 'steady_state') AS stage_drift,
        any_value(reason) FILTER (quantity = 'steady_state') AS steady_state
    FROM stage_statistics
    GROUP BY session_id, step, stage
),
of_all AS (
    UNPIVOT (
        SELECT
            session_id, step, stage,
            output_tokens_per_s AS throughput,
            ttft_p50_s AS ttft_p50, ttft_p95_s AS ttft_p95, ttft_p99_s AS ttft_p99, tpot_p50_s AS tpot_p50,
            e2e_p50_s AS e2e_p50, e2e_p95_s AS e2e_p95, e2e_p99_s AS e2e_p99, error_rate
        FROM stage_table
    )
    ON throughput, ttft_p50, ttft_p95, ttft_p99, tpot_p50, e2e_p50, e2e_p95, e2e_p99, error_rate
    INTO NAME quantity VALUE of_all
)
SELECT
    i.lab, i.variant, i.trial, i.target, i.engine, i.provenance, i.pace, i.time_scale, i.run_id, i.session_id,
    i.step, i.stage, i.users, i.offered_per_s, s.load,
    i.quantity, i.unit, i.value, i.low, i.high, i.n, i.n_effective, of_all.of_all, i.left_out, i.method, i.reason,
    i.state, i.drift, whole.warm_up_s, whole.warm_up, whole.stage_state, whole.stage_drift, whole.steady_state
FROM stage_statistics AS i
LEFT JOIN whole USING (session_id, step, stage)
LEFT JOIN of_all USING (session_id, step, stage, quantity)
LEFT JOIN (SELECT session_id, step, stage, load FROM stage_table) AS s USING (session_id, step, stage)
WHERE i.quantity NOT IN ('warm_up', 'steady_state');
