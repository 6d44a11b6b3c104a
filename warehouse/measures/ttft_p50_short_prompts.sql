-- How long did the stage's short prompts wait for their first token? They are the first of the step's shapes.
SELECT quantile_cont(ttft_s, 0.5) FROM requests
WHERE session_id = $session_id AND step = $step AND stage = $stage AND valid AND in_stage AND shape = 0
