-- How long was it from asking for the stack to its first token, in stack seconds?
SELECT cold_start_s FROM stack_sessions WHERE session_id = $session_id AND state = 'open'
