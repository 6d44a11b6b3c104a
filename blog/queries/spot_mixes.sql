-- All Spot, all on demand, or a mix: what does each serve within the objective, and what does it cost an hour?
SELECT
    c.variant AS "mix",
    c.scenario AS "reclaims of a Spot node",
    c.served_share * 100 AS "served, %",
    c.served_share_low * 100 AS "at least, %",
    c.worst_hour_share * 100 AS "in the worst hour, %",
    c.usd_per_hour::DOUBLE AS "USD an hour",
    c.usd_per_1k_output_tokens::DOUBLE AS "USD per 1K output tokens",
    c.lab, c.target, c.provenance, c.pace, c.time_scale, r.engine, c.run_id, r.recorded_at
FROM capacity_results AS c
JOIN latest_run AS r USING (session_id)
WHERE c.target = $target AND c.lab = $lab
ORDER BY c.provenance, c.pace, c.session_id, c.step, c.position;
