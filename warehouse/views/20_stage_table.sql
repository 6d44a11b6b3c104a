-- How did the stack do under each load? One row per load stage, in stack time; NULL is unknown, never zero.
--
-- `load` says what was applied: concurrent users, a burst, or a rate that was offered whatever came back, of one that
-- changes and of a trace the mean. Plain GETs have
-- no tokens: theirs are the columns e2e_ (sent to whole answer), and those of tokens are NULL.
-- Latencies come from the valid requests that began and ended in the stage. ITL is the gap between two streamed
-- events of one request, all gaps of the stage together. Rows of one session share its session_id, whichever asset
-- wrote them. `_supported` says whether the sample is large enough for a distribution-free 95 % interval with equal
-- tails: the largest of n values must lie above the quantile q with 97.5 % probability, q^n <= 0.025, so n >= 72 for
-- p95 and n >= 368 for p99. Below that the number stands, but nothing bounds it from above.
-- `client_fault` says why the load generator's own error leaves the stage without a valid request; NULL: it doesn't.
-- Its throughput stands, as a lower bound: a client that is the bottleneck asks for less than the stack can give.
-- `model_range` is 'inside', or 'outside: ' and why, of what the engine model was compared with; NULL without a model.
CREATE VIEW stage_table AS
WITH latency AS (
    SELECT
        session_id, step, stage,
        -- Several quantiles at once: each call keeps every value of its own.
        count(ttft_s) AS ttft_n,
        quantile_cont(ttft_s, [0.50, 0.95, 0.99]) AS ttft_s,
        quantile_cont(tpot_s, 0.50) AS tpot_p50_s,
        count(e2e_s) AS e2e_n,
        quantile_cont(e2e_s, [0.50, 0.95, 0.99]) AS e2e_s
    FROM requests
    WHERE valid AND in_stage
    GROUP BY session_id, step, stage
),
gaps AS (
    SELECT session_id, step, stage, (unnest(event_offsets_s[2:]) - unnest(event_offsets_s[:-2]))::DOUBLE AS itl_s
    FROM requests
    WHERE valid AND in_stage
),
itl AS (
    SELECT
        session_id, step, stage,
        quantile_cont(itl_s, [0.50, 0.95]) AS itl_s
    FROM gaps
    GROUP BY session_id, step, stage
),
server AS (
    SELECT
        session_id, step, stage,
        any_value(value) FILTER (measure = 'queue_depth') AS queue_depth,
        any_value(value) FILTER (measure = 'kv_cache_usage') AS kv_cache_usage,
        any_value(value) FILTER (measure = 'preemptions') AS preemptions,
        any_value(value) FILTER (measure = 'gpu_utilisation') AS gpu_utilisation
    FROM metric_summaries
    GROUP BY session_id, step, stage
),
cost AS (
    SELECT session_id, step, stage, usd_per_1k_tokens, usd_per_1k_output_tokens
    FROM sheet_current
    WHERE stage IS NOT NULL
)
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id,
    s.step,
    coalesce(s.profile, 'ramp') AS profile,
    coalesce(s.request_kind, 'completion') AS request_kind,
    s.stage, s.users, s.offered_per_s,
    load_in_words(s.profile, s.users, s.offered_per_s) AS load,
    s.started_at, s.duration_s, s.min_requests,
    s.requests_in_stage AS requests,
    s.requests_ok,
    (s.requests_in_stage - s.requests_ok) / nullif(s.requests_in_stage, 0) AS error_rate,
    s.requests_in_stage / nullif(s.duration_s, 0) AS requests_per_s,
    CASE WHEN s.request_kind IS DISTINCT FROM 'http' THEN s.output_tokens / nullif(s.duration_s, 0) END
        AS output_tokens_per_s,
    coalesce(latency.ttft_n, 0) AS ttft_n,
    latency.ttft_s[1] AS ttft_p50_s,
    latency.ttft_s[2] AS ttft_p95_s,
    coalesce(latency.ttft_n, 0) >= 72 AS ttft_p95_supported,
    latency.ttft_s[3] AS ttft_p99_s,
    coalesce(latency.ttft_n, 0) >= 368 AS ttft_p99_supported,
    itl.itl_s[1] AS itl_p50_s,
    itl.itl_s[2] AS itl_p95_s,
    latency.tpot_p50_s,
    latency.e2e_s[1] AS e2e_p50_s,
    latency.e2e_s[2] AS e2e_p95_s,
    coalesce(latency.e2e_n, 0) >= 72 AS e2e_p95_supported,
    latency.e2e_s[3] AS e2e_p99_s,
    coalesce(latency.e2e_n, 0) >= 368 AS e2e_p99_supported,
    server.queue_depth,
    server.kv_cache_usage,
    server.preemptions,
    server.gpu_utilisation,
    cost.usd_per_1k_tokens,
    cost.usd_per_1k_output_tokens,
    s.model_range,
    client_faults.client_fault
FROM load_stages AS s
LEFT JOIN latency USING (session_id, step, stage)
LEFT JOIN itl USING (session_id, step, stage)
LEFT JOIN server USING (session_id, step, stage)
LEFT JOIN client_faults USING (session_id, step, stage)
LEFT JOIN cost USING (session_id, step, stage);
