-- What is the mean TTFT of the requests in the log, in stack seconds?
SELECT avg(ttft_s) FROM log_requests WHERE session_id = $session_id AND logged_at >= $start
