-- How busy was the GPU of these sessions, in percent, whenever Prometheus was asked?
SELECT session_id, sampled_at, value
FROM metric_samples
WHERE measure = 'gpu_utilisation' AND unit = 'percent' AND session_id IN (
    SELECT session_id FROM stack_sessions
    WHERE target = $target AND state = 'closed' AND sku IS NOT NULL AND nodes > 0 AND refusal IS NULL
)
