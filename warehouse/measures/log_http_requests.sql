-- How many requests of users, not scrapes or probes, does an HTTP server's log have?
SELECT count(*) FROM log_lines
WHERE session_id = $session_id AND event = 'request' AND regexp_matches(line ->> 'path', '^/(status|delay)/')
