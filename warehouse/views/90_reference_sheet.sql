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
CREATE VIEW reference_sheet AS
WITH trials AS (
    SELECT
        lab, variant, target, provenance, engine, pace, time_scale, model, values_digest,
        sku, region, priority, nodes, gpus_per_node, slo_ttft_s, slo_tpot_s, slo_e2e_s,
        step, stage, users, offered_per_s,
        CASE
            WHEN stage IS NULL THEN 'whole session'
            WHEN profile = 'trace' THEN printf('trace, %.3g/s', offered_per_s)
            WHEN profile = 'rate_profile' THEN printf('mean %.3g/s', offered_per_s)
            WHEN offered_per_s IS NOT NULL THEN printf('%g/s', offered_per_s)
            WHEN profile = 'burst' THEN 'burst of ' || users
            WHEN users = 1 THEN '1 user'
            WHEN users IS NULL THEN 'a rate'
            ELSE users || ' users'
        END AS load,
        count(*) AS trials,
        count(*) FILTER (state = 'billed') AS billed_trials,
        max(recorded_at) AS newest_at,
        arg_max(run_id, (recorded_at, session_id)) AS run_id,
        arg_max(session_id, (recorded_at, session_id)) AS session_id,
        CASE WHEN count(usd_low) = count(*) THEN sum(usd_low)::DOUBLE / nullif(sum(usd)::DOUBLE, 0) END AS price_low,
        CASE WHEN count(usd_high) = count(*) THEN sum(usd_high)::DOUBLE / nullif(sum(usd)::DOUBLE, 0) END AS price_high,
        [
            {'quantity': 'usd_per_1k_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_1k_tokens > 0 THEN usd_per_1k_tokens END),
             'mean': avg(ln(CASE WHEN usd_per_1k_tokens > 0 THEN usd_per_1k_tokens END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_1k_tokens > 0 THEN usd_per_1k_tokens END))},
            {'quantity': 'usd_per_1k_output_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_1k_output_tokens > 0 THEN usd_per_1k_output_tokens END),
             'mean': avg(ln(CASE WHEN usd_per_1k_output_tokens > 0 THEN usd_per_1k_output_tokens END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_1k_output_tokens > 0 THEN usd_per_1k_output_tokens END))},
            {'quantity': 'input_usd_per_1k_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN input_usd_per_1k_tokens > 0 THEN input_usd_per_1k_tokens END),
             'mean': avg(ln(CASE WHEN input_usd_per_1k_tokens > 0 THEN input_usd_per_1k_tokens END)), 'sd': stddev_samp(ln(CASE WHEN input_usd_per_1k_tokens > 0 THEN input_usd_per_1k_tokens END))},
            {'quantity': 'output_usd_per_1k_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN output_usd_per_1k_tokens > 0 THEN output_usd_per_1k_tokens END),
             'mean': avg(ln(CASE WHEN output_usd_per_1k_tokens > 0 THEN output_usd_per_1k_tokens END)), 'sd': stddev_samp(ln(CASE WHEN output_usd_per_1k_tokens > 0 THEN output_usd_per_1k_tokens END))},
            {'quantity': 'serve_input_usd_per_1k_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN serve_input_usd_per_1k_tokens > 0 THEN serve_input_usd_per_1k_tokens END),
             'mean': avg(ln(CASE WHEN serve_input_usd_per_1k_tokens > 0 THEN serve_input_usd_per_1k_tokens END)), 'sd': stddev_samp(ln(CASE WHEN serve_input_usd_per_1k_tokens > 0 THEN serve_input_usd_per_1k_tokens END))},
            {'quantity': 'serve_output_usd_per_1k_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN serve_output_usd_per_1k_tokens > 0 THEN serve_output_usd_per_1k_tokens END),
             'mean': avg(ln(CASE WHEN serve_output_usd_per_1k_tokens > 0 THEN serve_output_usd_per_1k_tokens END)), 'sd': stddev_samp(ln(CASE WHEN serve_output_usd_per_1k_tokens > 0 THEN serve_output_usd_per_1k_tokens END))},
            {'quantity': 'usd_per_request', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_request > 0 THEN usd_per_request END),
             'mean': avg(ln(CASE WHEN usd_per_request > 0 THEN usd_per_request END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_request > 0 THEN usd_per_request END))},
            {'quantity': 'usd_per_useful_request', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_useful_request > 0 THEN usd_per_useful_request END),
             'mean': avg(ln(CASE WHEN usd_per_useful_request > 0 THEN usd_per_useful_request END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_useful_request > 0 THEN usd_per_useful_request END))},
            {'quantity': 'usd_per_1k_useful_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_1k_useful_tokens > 0 THEN usd_per_1k_useful_tokens END),
             'mean': avg(ln(CASE WHEN usd_per_1k_useful_tokens > 0 THEN usd_per_1k_useful_tokens END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_1k_useful_tokens > 0 THEN usd_per_1k_useful_tokens END))},
            {'quantity': 'usd_per_1k_useful_output_tokens', 'unit': 'USD', 'scale': 'log', 'money': true, 'n': count(CASE WHEN usd_per_1k_useful_output_tokens > 0 THEN usd_per_1k_useful_output_tokens END),
             'mean': avg(ln(CASE WHEN usd_per_1k_useful_output_tokens > 0 THEN usd_per_1k_useful_output_tokens END)), 'sd': stddev_samp(ln(CASE WHEN usd_per_1k_useful_output_tokens > 0 THEN usd_per_1k_useful_output_tokens END))},
            {'quantity': 'usd', 'unit': 'USD', 'scale': 'linear', 'money': true, 'n': count(usd),
             'mean': avg(usd::DOUBLE), 'sd': stddev_samp(usd::DOUBLE)},
            {'quantity': 'idle_usd', 'unit': 'USD', 'scale': 'linear', 'money': true, 'n': count(idle_usd),
             'mean': avg(idle_usd::DOUBLE), 'sd': stddev_samp(idle_usd::DOUBLE)},
            {'quantity': 'idle_gpu_hours', 'unit': 'GPU-hours', 'scale': 'linear', 'money': false, 'n': count(idle_gpu_hours),
             'mean': avg(idle_gpu_hours::DOUBLE), 'sd': stddev_samp(idle_gpu_hours::DOUBLE)},
            {'quantity': 'idle_share', 'unit': 'share', 'scale': 'linear', 'money': false, 'n': count(idle_share),
             'mean': avg(idle_share::DOUBLE), 'sd': stddev_samp(idle_share::DOUBLE)},
            {'quantity': 'efficiency', 'unit': 'share', 'scale': 'linear', 'money': false, 'n': count(efficiency),
             'mean': avg(efficiency::DOUBLE), 'sd': stddev_samp(efficiency::DOUBLE)},
            {'quantity': 'useful_share', 'unit': 'share', 'scale': 'linear', 'money': false, 'n': count(useful_share),
             'mean': avg(useful_share::DOUBLE), 'sd': stddev_samp(useful_share::DOUBLE)},
            {'quantity': 'prefill_share', 'unit': 'share', 'scale': 'linear', 'money': false, 'n': count(prefill_share),
             'mean': avg(prefill_share::DOUBLE), 'sd': stddev_samp(prefill_share::DOUBLE)},
            {'quantity': 'cold_start_requests', 'unit': 'requests', 'scale': 'log', 'money': false, 'n': count(CASE WHEN cold_start_requests > 0 THEN cold_start_requests END),
             'mean': avg(ln(CASE WHEN cold_start_requests > 0 THEN cold_start_requests END)), 'sd': stddev_samp(ln(CASE WHEN cold_start_requests > 0 THEN cold_start_requests END))},
            {'quantity': 'break_even_idle_s', 'unit': 's', 'scale': 'log', 'money': false, 'n': count(CASE WHEN break_even_idle_s > 0 THEN break_even_idle_s END),
             'mean': avg(ln(CASE WHEN break_even_idle_s > 0 THEN break_even_idle_s END)), 'sd': stddev_samp(ln(CASE WHEN break_even_idle_s > 0 THEN break_even_idle_s END))}
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
