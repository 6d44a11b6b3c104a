-- What did each stage of a session get done: requests, tokens, and which of them kept the objective?
-- Tokens of a stage are those that passed in its window, whichever request they belong to: output tokens as they
-- arrived, and a prompt's tokens when its first output token did. Whether a request is useful, by $ttft_s, $tpot_s and
-- $e2e_s (NULL: no such bound), is told of whole ones alone, sent and finished within the stage; of the tokens in its window
-- the useful ones are the same share as of theirs. Theirs alone would be too few where requests are long for the stage.
-- NULL where the client was over its error budget: what it saw of latencies is not what the stack gave.
WITH prompts AS (
    SELECT s.step, s.stage, sum(coalesce(r.input_tokens, r.expected_input_tokens)) AS tokens
    FROM load_stages AS s
    JOIN requests AS r
        ON r.session_id = s.session_id AND r.step = s.step
        AND r.scheduled_at + to_microseconds((1e6 * r.ttft_s / r.time_scale)::BIGINT) >= s.started_at
        AND r.scheduled_at + to_microseconds((1e6 * r.ttft_s / r.time_scale)::BIGINT) < s.ended_at
    WHERE s.session_id = $session_id
    GROUP BY s.step, s.stage
),
whole AS (
    SELECT
        step, stage,
        coalesce(input_tokens, expected_input_tokens) AS input_tokens,
        output_tokens,
        ($ttft_s::DOUBLE IS NULL OR ttft_s <= $ttft_s)
            AND ($tpot_s::DOUBLE IS NULL OR coalesce(tpot_s, 0) <= $tpot_s)
            AND ($e2e_s::DOUBLE IS NULL OR e2e_s <= $e2e_s) AS is_useful
    FROM requests
    WHERE session_id = $session_id AND in_stage AND outcome = 'ok'
),
useful AS (
    SELECT
        step, stage,
        count(*) FILTER (is_useful) AS requests,
        coalesce(sum(input_tokens) FILTER (is_useful), 0) / nullif(sum(input_tokens), 0) AS input_share,
        coalesce(sum(output_tokens) FILTER (is_useful), 0) / nullif(sum(output_tokens), 0) AS output_share
    FROM whole
    GROUP BY step, stage
)
SELECT
    s.step, s.stage, s.users, s.profile, s.offered_per_s,
    epoch_us(s.started_at) AS started_us, epoch_us(s.ended_at) AS ended_us,
    s.requests_ok AS requests,
    coalesce(prompts.tokens, 0)::BIGINT AS input_tokens,
    s.output_tokens,
    CASE WHEN client_fault IS NULL THEN coalesce(useful.requests, 0) END AS useful_requests,
    round(coalesce(useful.input_share, 0) * coalesce(prompts.tokens, 0))::BIGINT AS useful_input_tokens,
    round(coalesce(useful.output_share, 0) * s.output_tokens)::BIGINT AS useful_output_tokens
FROM load_stages AS s
LEFT JOIN prompts USING (step, stage)
LEFT JOIN useful USING (step, stage)
LEFT JOIN client_faults USING (session_id, step, stage)
WHERE s.session_id = $session_id
ORDER BY s.step, s.stage
