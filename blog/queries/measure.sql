-- What is the measure $measure of a whole run? Of the newest run of the variant; a measured one before a modelled one.
SELECT
    m.value, $unit AS unit, m.gap_reason AS gap,
    m.lab, m.target, m.provenance, m.pace, m.time_scale, m.engine, m.run_id, m.recorded_at
FROM metric_summaries AS m
SEMI JOIN latest_run USING (session_id)
WHERE m.target = $target AND m.lab = $lab AND m.variant = $variant AND m.measure = $measure AND m.step IS NULL
QUALIFY row_number() OVER (ORDER BY (m.provenance = 'measured') DESC, m.recorded_at DESC, m.run_id) = 1;
