-- How long did the stage's long prompts wait for their first token? They are the second of the step's shapes.
SELECT quantile_cont(ttft_s, 0.5) FROM requests
WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage AND shape = 1
