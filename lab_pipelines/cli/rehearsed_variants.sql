-- What did a rehearsal do with each variant? One row per session of the run, in the order in which they were walked.
WITH loaded AS (
    SELECT session_id, sum(duration_s) AS stages_s FROM load_stages WHERE run_id = $run_id GROUP BY session_id
)
SELECT
    s.session_id, s.variant, s.sku, s.nodes, s.model, coalesce(s.cold_start_s, 0) AS cold_start_s, s.model_loaded_s,
    greatest(s.held_s - coalesce(s.first_token_s, 0) - coalesce(stages_s, 0), 0) AS outside_s
FROM stack_sessions AS s
LEFT JOIN loaded USING (session_id)
WHERE s.run_id = $run_id AND s.state = 'closed'
ORDER BY s.requested_at;
