-- When was each request of a session with the server, and when did its first token come? Wall microseconds.
SELECT
    epoch_us(sent_at) AS sent_us,
    epoch_us(scheduled_at) + (1e6 * ttft_s / time_scale)::BIGINT AS first_token_us,
    epoch_us(finished_at) AS finished_us,
    coalesce(input_tokens, expected_input_tokens) AS input_tokens,
    outcome NOT IN ('ok', 'cut') AS failed
FROM requests
WHERE session_id = $session_id
