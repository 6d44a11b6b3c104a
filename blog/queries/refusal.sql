-- What did the engine say when it would not start with a variant of a lab? By the newest run of that variant.
SELECT
    (SELECT max(s.refusal) FROM stack_sessions AS s WHERE s.session_id = r.session_id) AS value,
    'text' AS unit, 'the variant came up' AS gap,
    r.lab, r.target, r.provenance, r.pace, r.time_scale, r.engine, r.run_id, r.recorded_at
FROM latest_run AS r
WHERE r.target = $target AND r.lab = $lab AND r.variant = $variant
QUALIFY row_number() OVER (ORDER BY (r.provenance = 'measured') DESC, r.recorded_at DESC, r.run_id) = 1;
