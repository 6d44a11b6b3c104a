-- What is each stage of a run made of, in the order of time? One row per stage: its requests' latencies by when they were
-- due, and the tokens that arrived in each hundredth of it, from any request, per stack second.
WITH arrived AS (
    SELECT
        session_id, step, epoch(scheduled_at) + unnest(event_offsets_s) / time_scale AS at_s,
        output_tokens / len(event_offsets_s) AS tokens
    FROM requests
    WHERE run_id = $run_id AND len(event_offsets_s) > 0
),
sliced AS (
    SELECT
        s.session_id, s.step, s.stage,
        floor(100 * (a.at_s - epoch(s.started_at)) / (epoch(s.ended_at) - epoch(s.started_at)))::INTEGER AS slice,
        sum(a.tokens) / (any_value(s.duration_s) / 100) AS tokens_per_s
    FROM load_stages AS s
    JOIN arrived AS a USING (session_id, step)
    WHERE a.at_s >= epoch(s.started_at) AND a.at_s < epoch(s.ended_at)
    GROUP BY ALL
),
throughput AS (
    SELECT session_id, step, stage, list(coalesce(tokens_per_s, 0) ORDER BY slice) AS tokens_per_s
    FROM (SELECT DISTINCT session_id, step, stage FROM sliced)
    CROSS JOIN range(100) AS every(slice)
    LEFT JOIN sliced USING (session_id, step, stage, slice)
    GROUP BY ALL
),
latencies AS (
    SELECT
        session_id, step, stage,
        list(ttft_s ORDER BY scheduled_at, request_id) FILTER (ttft_s IS NOT NULL) AS ttft_s,
        list(tpot_s ORDER BY scheduled_at, request_id) FILTER (tpot_s IS NOT NULL) AS tpot_s,
        list(e2e_s ORDER BY scheduled_at, request_id) FILTER (e2e_s IS NOT NULL) AS e2e_s
    FROM requests
    WHERE run_id = $run_id AND valid AND in_stage
    GROUP BY ALL
)
SELECT s.session_id, s.step, s.stage, tokens_per_s, ttft_s, tpot_s, e2e_s
FROM load_stages AS s
LEFT JOIN throughput USING (session_id, step, stage)
LEFT JOIN latencies USING (session_id, step, stage)
WHERE s.run_id = $run_id;
