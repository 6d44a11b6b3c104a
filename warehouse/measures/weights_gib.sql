-- How many GiB of each GPU's memory do the weights take, as the engine said when it came up?
SELECT arg_max((line ->> '$.weights_bytes')::DOUBLE, logged_at) / 1024 ** 3 FROM log_lines
WHERE session_id = $session_id AND event = 'serving'
