-- How long was the wait for the first token of the requests that ended in the stage and were never preempted?
-- From the engine's own log.
SELECT quantile_cont((line ->> '$.ttft_s')::DOUBLE, 0.5) FROM log_lines
WHERE session_id = $session_id AND event = 'request_finished' AND (line ->> '$.preemptions')::INTEGER = 0
  AND logged_at >= $start AND logged_at <= $end
