-- What is the mean end-to-end latency of the requests in the log, in stack seconds?
SELECT avg(e2e_s) FROM log_requests WHERE session_id = $session_id AND logged_at >= $start AND finished_reason <> 'abort'
