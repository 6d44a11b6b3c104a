-- How many KV-cache blocks did the engine say it has, when it came up last?
SELECT arg_max((line ->> '$.kv_blocks')::DOUBLE, logged_at) FROM log_lines
WHERE session_id = $session_id AND event = 'serving'
