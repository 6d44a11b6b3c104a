-- For how long, at least, did one in twenty of the short prompts, the first of the shapes, wait for its first token?
SELECT quantile_cont(ttft_s, 0.95) FROM requests
WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage AND shape = 0
