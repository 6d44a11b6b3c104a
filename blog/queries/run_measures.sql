-- What are the measures of a lab's newest run whose names begin with $prefix? One row per variant and measure.
SELECT
    m.variant AS "variant",
    replace(m.measure, '_', ' ') AS "measure",
    m.value AS "value",
    m.unit AS "unit",
    coalesce(m.gap_reason, '') AS "why there is none",
    m.lab, m.target, m.provenance, m.pace, m.time_scale, m.engine, m.run_id, m.recorded_at
FROM metric_summaries AS m
SEMI JOIN latest_run USING (session_id)
WHERE m.target = $target AND m.lab = $lab AND m.step IS NULL AND starts_with(m.measure, $prefix)
ORDER BY m.provenance, m.variant, m.measure, m.pace, m.engine;
