-- Which part of twice one GPU's tokens/s do two GPUs give with tensor parallelism, at 16 users?
SELECT
    max(output_tokens / duration_s) FILTER (variant = 'tensor-2')
        / (2 * max(output_tokens / duration_s) FILTER (variant = 'one-t4'))
FROM load_stages
SEMI JOIN run_sessions USING (session_id)
ANTI JOIN client_faults USING (session_id, step, stage)
WHERE run_id = $run_id AND users = 16
