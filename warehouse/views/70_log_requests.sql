-- What does the engine's own log say of each request, without any metric? One row per finished request, in stack time.
CREATE VIEW log_requests AS
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id, component, logged_at,
    line ->> '$.request_id' AS request_id,
    line ->> '$.model' AS model,
    line ->> '$.finished_reason' AS finished_reason,
    (line ->> '$.prompt_tokens')::INTEGER AS prompt_tokens,
    (line ->> '$.output_tokens')::INTEGER AS output_tokens,
    (line ->> '$.queue_s')::DOUBLE AS queue_s,
    (line ->> '$.ttft_s')::DOUBLE AS ttft_s,
    (line ->> '$.e2e_s')::DOUBLE AS e2e_s,
    (line ->> '$.output_tokens_per_s')::DOUBLE AS output_tokens_per_s
FROM log_lines
WHERE event = 'request_finished';
