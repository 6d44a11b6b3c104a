-- How far is each shown variant from the year's baseline? One row per variant, comparison (the best stage, or the same load)
-- and quantity: the least and the largest ratio of the stages that compare, and why others don't. Quantiles of too few
-- requests are not counted.
SELECT
    d.run_id, d.lab, d.target, d.session_id, d.variant, d.comparison, d.quantity,
    count(*) AS stages,
    count(d.ratio) FILTER (d.supported) AS compared,
    min(d.ratio) FILTER (d.supported) AS low,
    max(d.ratio) FILTER (d.supported) AS high,
    any_value(d.caveat) AS caveat,
    string_agg(DISTINCT d.reason, '; ' ORDER BY d.reason) AS reason,
    any_value(d.baseline_file) AS baseline_file,
    any_value(d.baseline_run_id) AS baseline_run_id,
    any_value(b.pinned_at) AS pinned_at
FROM baseline_deltas AS d
LEFT JOIN (SELECT digest, min(pinned_at) AS pinned_at FROM baselines GROUP BY digest) AS b ON b.digest = d.baseline_digest
GROUP BY d.run_id, d.lab, d.target, d.session_id, d.variant, d.comparison, d.quantity
ORDER BY d.run_id, d.session_id, d.comparison, d.quantity;
