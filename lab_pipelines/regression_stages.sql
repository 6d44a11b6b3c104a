-- What did each stage of each run of a lab on a target give? One row per session and stage, oldest run first.
-- `nth` tells stages of one step apart that apply the same load twice. Of several turns of a run one `speaks` for its
-- variant. Where the load generator was over its own error budget, throughput is but a lower bound, and a price an upper
-- one: no numbers to compare.
SELECT
    t.run_id, t.session_id, r.recorded_at, r.invalid_reason,
    t.engine, t.provenance, t.pace, t.time_scale, s.model, s.sku, s.spec_digest, s.values_digest,
    t.session_id IN (SELECT session_id FROM run_sessions) AS speaks,
    t.variant, t.step, t.stage, t.users, t.offered_per_s, t.load,
    row_number() OVER (PARTITION BY t.session_id, t.step, t.users, t.offered_per_s ORDER BY t.stage) AS nth,
    t.request_kind, t.requests,
    CASE WHEN t.client_fault IS NULL THEN t.output_tokens_per_s END AS output_tokens_per_s,
    t.ttft_p50_s, t.ttft_p95_s, t.tpot_p50_s, t.e2e_p50_s, t.e2e_p95_s,
    CASE WHEN t.client_fault IS NULL THEN t.usd_per_1k_tokens END AS usd_per_1k_tokens
FROM stage_table AS t
JOIN session_results AS r USING (session_id)
LEFT JOIN (SELECT DISTINCT session_id, model, sku, spec_digest, values_digest FROM stack_sessions) AS s USING (session_id)
WHERE t.lab = $lab AND t.target = $target
ORDER BY r.recorded_at, t.run_id, t.session_id, t.step, t.stage;
