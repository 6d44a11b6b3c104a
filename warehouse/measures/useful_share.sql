-- Which share of the stage's output tokens was useful: of requests with a first token within 2 s, and 80 ms for each after it?
SELECT coalesce(sum(output_tokens) FILTER (ttft_s <= 2.0 AND coalesce(tpot_s, 0) <= 0.080), 0) / sum(output_tokens)
FROM requests
ANTI JOIN client_faults USING (session_id, step, stage)
WHERE session_id = $session_id AND step = $step AND stage = $stage AND in_stage AND outcome = 'ok'
