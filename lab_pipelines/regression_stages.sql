-- What did each stage of each run of a lab on a target give? One row per session and stage, oldest run first.
-- `nth` tells stages of one step apart that apply the same load twice. Without those whose client was over its error
-- budget: it asks for less than the stack can give, which would pass for a regression of the stack.
SELECT
    t.run_id, t.session_id, r.recorded_at, r.invalid_reason,
    t.engine, t.provenance, t.pace, t.time_scale, s.model, s.sku, s.spec_digest, s.values_digest,
    t.variant, t.trial, t.step, t.stage, t.users, t.offered_per_s, t.load,
    row_number() OVER (PARTITION BY t.session_id, t.step, t.users, t.offered_per_s ORDER BY t.stage) AS nth,
    t.request_kind, t.requests,
    t.output_tokens_per_s, t.ttft_p50_s, t.ttft_p95_s, t.tpot_p50_s, t.e2e_p50_s, t.e2e_p95_s, t.usd_per_1k_tokens
FROM stage_table AS t
JOIN session_results AS r USING (session_id)
LEFT JOIN (SELECT DISTINCT session_id, model, sku, spec_digest, values_digest FROM stack_sessions) AS s USING (session_id)
WHERE t.lab = $lab AND t.target = $target
QUALIFY t.client_fault IS NULL  -- after `nth`
ORDER BY r.recorded_at, t.run_id, t.session_id, t.step, t.stage;
