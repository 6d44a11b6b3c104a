-- How far off were the rehearsals, run by run: the median and the worst absolute error of each lab and quantity?
-- Quantiles of samples that are too small for them don't count. `comparison` tells a modelled run from a measured one.
SELECT
    lab, target, pace, provenance, time_scale, comparison, quantity,
    max(recorded_at) AS recorded_at,
    count(*) AS compared,
    round(median(abs(error)), 4) AS median_abs_error,
    round(max(abs(error)), 4) AS worst_abs_error,
    arg_max(concat_ws(' ', variant, step, load), abs(error)) AS worst_at,
    count(*) FILTER (model_range LIKE 'outside%') AS outside_model_range,
    run_id
FROM forecast_vs_measured
WHERE error IS NOT NULL AND supported
GROUP BY lab, target, pace, provenance, time_scale, comparison, quantity, run_id
ORDER BY lab, target, quantity, recorded_at;
