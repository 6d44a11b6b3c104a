-- What came of the claim $finding of $lab, by its newest judgement on target $target? A measured one comes before a
-- modelled one.
SELECT
    f.claim, f.verdict, f.effect, f.interval_low, f.interval_high, f.n, f.method, f.reason,
    f.variant, f.lab, f.target, f.provenance, f.pace, f.time_scale, f.engine, f.run_id, f.recorded_at,
    (SELECT max(s.model_range) FROM stack_sessions AS s WHERE s.session_id = f.session_id) AS model_range
FROM findings AS f
SEMI JOIN latest_run AS r ON r.session_id = f.session_id
WHERE f.target = $target AND f.lab = $lab AND f.finding = $finding
QUALIFY row_number() OVER (ORDER BY (f.provenance = 'measured') DESC, f.recorded_at DESC, f.run_id, f.variant) = 1;
