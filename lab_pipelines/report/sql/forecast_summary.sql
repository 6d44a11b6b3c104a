-- How far off were the rehearsals of the year, quantity by quantity? One row per place, comparison and quantity, over the
-- shown runs of all labs; quantiles of samples that are too small for them don't count.
SELECT
    target, provenance, comparison, quantity,
    count(DISTINCT lab) AS labs,
    count(*) AS compared,
    median(abs(error)) AS median_abs_error,
    quantile_cont(abs(error), 0.9) AS p90_abs_error,
    median(error) AS median_error,
    max(abs(error)) AS worst_abs_error,
    arg_max(lab || ' ' || concat_ws(' ', variant, step, load), abs(error)) AS worst_at
FROM forecast_vs_measured
SEMI JOIN latest_run USING (session_id)
WHERE error IS NOT NULL AND supported
GROUP BY target, provenance, comparison, quantity
ORDER BY target, provenance, comparison, quantity;
