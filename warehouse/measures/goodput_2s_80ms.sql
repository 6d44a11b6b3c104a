-- How many requests per second met the objective: a first token within 2 s, and 80 ms for each one after it?
SELECT count(*) FILTER (r.ttft_s <= 2.0 AND coalesce(r.tpot_s, 0) <= 0.080) / any_value(s.duration_s)
FROM load_stages AS s
JOIN requests AS r USING (session_id, step, stage)
ANTI JOIN client_faults USING (session_id, step, stage)
WHERE s.session_id = $session_id AND s.step = $step AND s.stage = $stage AND r.in_stage AND r.outcome = 'ok'
