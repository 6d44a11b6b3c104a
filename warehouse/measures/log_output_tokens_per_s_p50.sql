-- How fast does the median request of the log decode, in tokens per stack second?
SELECT median(output_tokens_per_s) FROM log_requests WHERE session_id = $session_id AND logged_at >= $start
