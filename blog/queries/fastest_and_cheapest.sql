-- What were the most output tokens/s and the cheapest 1K tokens on each machine type of a target? Of the newest runs.
SELECT
    v.sku AS "machine",
    max(s.output_tokens_per_s) AS "most output tokens/s",
    arg_max(n.name, (s.output_tokens_per_s, n.name)) AS "which was",
    min(s.usd_per_1k_tokens)::DOUBLE AS "cheapest 1K tokens, USD",
    arg_min(n.name, (s.usd_per_1k_tokens, n.name)) AS "and that was",
    $target AS target, s.provenance, list(DISTINCT s.run_id ORDER BY s.run_id) AS run_id,
    max(r.recorded_at) AS recorded_at
FROM stage_table AS s
JOIN latest_run AS r USING (session_id)
JOIN (SELECT DISTINCT session_id, sku FROM stack_sessions WHERE sku IS NOT NULL) AS v USING (session_id)
CROSS JOIN LATERAL (SELECT s.lab || ' ' || s.variant || ', ' || s.load AS name) AS n
WHERE s.target = $target AND s.output_tokens_per_s IS NOT NULL
GROUP BY v.sku, s.provenance
ORDER BY s.provenance, v.sku;
