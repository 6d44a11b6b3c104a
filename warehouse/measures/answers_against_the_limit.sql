-- How many requests were refused though prompt and answer fit max_model_len, or answered though they don't?
WITH limits AS (
    SELECT session_id, args[list_position(args, '--max-model-len') + 1]::INTEGER AS most
    FROM (
        SELECT DISTINCT session_id, from_json(engine_args, '["VARCHAR"]') AS args
        FROM stack_sessions WHERE run_id = $run_id
    )
)
SELECT count(*) FILTER ((r.http_status = 400) <> (tokens > limits.most))::DOUBLE
FROM (
    SELECT
        session_id, http_status,
        -- Prompt and answer as the spec's steps ask for them; what the server cuts counts as it is kept.
        CASE step WHEN 'above-1024' THEN 1536 + 64 WHEN 'above-all' THEN 5000 + 64 WHEN 'cut-by-server' THEN 768 + 64
            ELSE 512 + 256 END AS tokens
    FROM requests WHERE run_id = $run_id AND outcome <> 'cut'
) AS r
JOIN limits USING (session_id)
