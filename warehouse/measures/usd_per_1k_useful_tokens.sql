-- What do a thousand useful output tokens of the stage cost: those of requests with a first token within 2 s, and 80 ms for
-- each after it? The whole stage is paid by them.
WITH useful AS (
    SELECT
        coalesce(sum(output_tokens) FILTER (ttft_s <= 2.0 AND coalesce(tpot_s, 0) <= 0.080), 0) / sum(output_tokens)
            AS share
    FROM requests
    WHERE session_id = $session_id AND step = $step AND stage = $stage AND in_stage AND outcome = 'ok'
)
SELECT
    s.usd_per_1k_output_tokens / nullif(u.share, 0) AS usd,
    CASE u.share WHEN 0 THEN 'no request of the stage met the objective' ELSE 'the stage has no price' END AS gap
FROM finops_sheet AS s CROSS JOIN useful AS u
WHERE s.session_id = $session_id AND s.step = $step AND s.stage = $stage
QUALIFY row_number() OVER (ORDER BY s.recorded_at DESC) = 1
