-- How far is each lab's best stage from L06's best in the same place? One row per lab, target, provenance and quantity (the
-- fastest, the cheapest): of the session that was best. `ratio` is NULL where the two don't compare, and `reason` says why.
SELECT
    p.lab, p.target, p.provenance, p.quantity, p.value, p.baseline_value, p.ratio, p.reason, p.caveat,
    p.baseline_file, p.baseline_run_id, b.pinned_at
FROM baseline_deltas AS p
LEFT JOIN (SELECT digest, min(pinned_at) AS pinned_at FROM baselines GROUP BY digest) AS b ON b.digest = p.baseline_digest
WHERE p.comparison = 'peak'
QUALIFY row_number() OVER (
    PARTITION BY p.lab, p.target, p.provenance, p.quantity
    ORDER BY CASE p.better WHEN 'higher' THEN -p.value ELSE p.value END NULLS LAST, p.recorded_at DESC, p.session_id
) = 1
ORDER BY p.lab, p.target, p.provenance, p.quantity;
