-- What does everything cost that was ever tested, on which machine, and how sure is that? The year's reference sheet.
--
-- One row per quantity, for each configuration (lab, variant, target, pace, engine, machine, its Helm values, objective)
-- and load; `step` NULL is the whole session. Trials are sessions: repeats of the same configuration and load; those of a
-- run that was marked invalid are none. A quantity that no trial has, such as a price per token of plain GETs, has no row.
-- `run_id` and `session_id` are the newest trial's.
--
-- `value` is the trials' mean: the geometric one where `scale` is log. Costs per unit and ratios are positive and vary by
-- factors, so their logarithms are what may be taken as normal; shares and amounts, which may be zero, are taken as they
-- are. `trial_low` to `trial_high` is Student's 95 % interval for that mean; it takes trials as independent and roughly
-- normal on that scale. `low` to `high` is its worst case with the unit price at either bound. There is none for one
-- trial, for trials that all gave the same (repeats of one draw, as a rehearsal's are, tell nothing of the spread), or
-- where some trials have no value, as the useful token's cost has none where none was useful; `interval` says which.

-- One quantity over the trials of a group; `x` is its column. Of one on the log scale only positive values count.
CREATE MACRO trials_on_log(quantity, unit, money, x) AS {
    'quantity': quantity, 'unit': unit, 'scale': 'log', 'money': money,
    'n': count(CASE WHEN x > 0 THEN x END),
    'mean': avg(ln(CASE WHEN x > 0 THEN x END)), 'sd': stddev_samp(ln(CASE WHEN x > 0 THEN x END))
};
CREATE MACRO trials_on_linear(quantity, unit, money, x) AS {
    'quantity': quantity, 'unit': unit, 'scale': 'linear', 'money': money,
    'n': count(x), 'mean': avg(x::DOUBLE), 'sd': stddev_samp(x::DOUBLE)
};

CREATE VIEW reference_sheet AS
WITH trials AS (
    SELECT
        lab, variant, target, provenance, engine, pace, time_scale, model, values_digest,
        sku, region, priority, nodes, gpus_per_node, slo_ttft_s, slo_tpot_s, slo_e2e_s,
        step, stage, users, offered_per_s,
        CASE WHEN stage IS NULL THEN 'whole session' ELSE load_in_words(profile, users, offered_per_s) END AS load,
        count(*) AS trials,
        count(*) FILTER (state = 'billed') AS billed_trials,
        max(recorded_at) AS newest_at,
        arg_max(run_id, (recorded_at, session_id)) AS run_id,
        arg_max(session_id, (recorded_at, session_id)) AS session_id,
        CASE WHEN count(usd_low) = count(*) THEN sum(usd_low)::DOUBLE / nullif(sum(usd)::DOUBLE, 0) END AS price_low,
        CASE WHEN count(usd_high) = count(*) THEN sum(usd_high)::DOUBLE / nullif(sum(usd)::DOUBLE, 0) END AS price_high,
        [
            trials_on_log('usd_per_1k_tokens', 'USD', true, usd_per_1k_tokens),
            trials_on_log('usd_per_1k_output_tokens', 'USD', true, usd_per_1k_output_tokens),
            trials_on_log('input_usd_per_1k_tokens', 'USD', true, input_usd_per_1k_tokens),
            trials_on_log('output_usd_per_1k_tokens', 'USD', true, output_usd_per_1k_tokens),
            trials_on_log('serve_input_usd_per_1k_tokens', 'USD', true, serve_input_usd_per_1k_tokens),
            trials_on_log('serve_output_usd_per_1k_tokens', 'USD', true, serve_output_usd_per_1k_tokens),
            trials_on_log('usd_per_request', 'USD', true, usd_per_request),
            trials_on_log('usd_per_useful_request', 'USD', true, usd_per_useful_request),
            trials_on_log('usd_per_1k_useful_tokens', 'USD', true, usd_per_1k_useful_tokens),
            trials_on_log('usd_per_1k_useful_output_tokens', 'USD', true, usd_per_1k_useful_output_tokens),
            trials_on_linear('usd', 'USD', true, usd),
            trials_on_linear('idle_usd', 'USD', true, idle_usd),
            trials_on_linear('idle_gpu_hours', 'GPU-hours', false, idle_gpu_hours),
            trials_on_linear('idle_share', 'share', false, idle_share),
            trials_on_linear('efficiency', 'share', false, efficiency),
            trials_on_linear('useful_share', 'share', false, useful_share),
            trials_on_linear('prefill_share', 'share', false, prefill_share),
            trials_on_log('cold_start_requests', 'requests', false, cold_start_requests),
            trials_on_log('break_even_idle_s', 's', false, break_even_idle_s)
        ] AS quantities
    FROM sheet_current
    WHERE run_id NOT IN (SELECT run_id FROM run_marks)
    GROUP BY ALL
),
spread AS (
    SELECT
        * EXCLUDE (quantities, q),
        q.quantity, q.unit, q.scale, q.money, q.n, q.mean, q.sd,
        CASE
            WHEN trials = 1 THEN 'none: one trial'
            WHEN q.n < trials THEN 'none: ' || (trials - q.n) || ' of ' || trials || ' trials have no value'
            WHEN q.sd <= 1e-9 * CASE q.scale WHEN 'log' THEN 1 ELSE abs(q.mean) END
                THEN 'none: all ' || trials || ' trials gave the same'
        END AS refusal,
        -- Student's t, 97.5 % quantile for 1, 2, … 30 degrees of freedom; beyond that the last one, which is a little wide.
        [
        12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
        2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
        2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272
        ][least(q.n - 1, 30)] * q.sd / sqrt(q.n) AS reach
    FROM (SELECT *, unnest(quantities) AS q FROM trials)
    WHERE q.n > 0
),
bounded AS (
    SELECT
        *,
        CASE scale WHEN 'log' THEN exp(mean) ELSE mean END AS value,
        CASE WHEN refusal IS NULL THEN CASE scale WHEN 'log' THEN exp(mean - reach) ELSE greatest(mean - reach, 0) END END
            AS trial_low,
        CASE
            WHEN refusal IS NOT NULL THEN NULL
            WHEN scale = 'log' THEN exp(mean + reach)
            WHEN unit = 'share' THEN least(mean + reach, 1)
            ELSE mean + reach
        END AS trial_high
    FROM spread
)
SELECT
    lab, variant, target, provenance, engine, pace, time_scale, model, values_digest,
    sku, region, priority, nodes, gpus_per_node, slo_ttft_s, slo_tpot_s, slo_e2e_s,
    step, stage, users, offered_per_s, load,
    quantity, unit, scale, trials, billed_trials,
    value, trial_low, trial_high,
    CASE WHEN money THEN trial_low * price_low ELSE trial_low END AS low,
    CASE WHEN money THEN trial_high * price_high ELSE trial_high END AS high,
    CASE WHEN money THEN price_low END AS price_low,
    CASE WHEN money THEN price_high END AS price_high,
    CASE
        WHEN refusal IS NOT NULL THEN refusal
        WHEN NOT money THEN '95 %, t of ' || trials || ' trials, ' || scale
        WHEN price_low IS NULL OR price_high IS NULL THEN 'none: the bounds of the price are not known'
        ELSE '95 %, t of ' || trials || ' trials, ' || scale || '; price x '
            || printf('%.3g', price_low) || ' to ' || printf('%.3g', price_high)
    END AS interval,
    newest_at, run_id, session_id
FROM bounded;
