-- When was each request of these sessions under way?
SELECT session_id, sent_at, finished_at
FROM requests
WHERE session_id IN (
    SELECT session_id FROM stack_sessions
    WHERE target = $target AND state = 'closed' AND sku IS NOT NULL AND nodes > 0 AND refusal IS NULL
)
