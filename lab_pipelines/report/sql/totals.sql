-- How much has been run so far, kept apart by target and provenance? Money and GPU-hours are those of all sessions, also of
-- those whose run was cut or has nothing else to tell; `usd` and `gpu_hours` count what is known, and the columns beside them
-- the runs and sessions of which it isn't. Verdicts are those of the runs that speak for their lab.
WITH ran AS (
    SELECT
        target, provenance,
        count(DISTINCT lab) AS labs,
        count(DISTINCT run_id) AS runs,
        coalesce(sum(requests_ok), 0)::BIGINT AS requests_ok,
        coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
        coalesce(sum(confirmed) FILTER (latest), 0)::BIGINT AS confirmed,
        coalesce(sum(refuted) FILTER (latest), 0)::BIGINT AS refuted,
        coalesce(sum(inconclusive) FILTER (latest), 0)::BIGINT AS inconclusive
    FROM run_overview
    GROUP BY target, provenance
),
gpus AS (
    SELECT session_id, max(gpus) AS gpus FROM stack_sessions GROUP BY session_id
),
cost AS (
    SELECT
        target, provenance,
        sum(usd) AS usd,
        count(DISTINCT run_id) FILTER (usd IS NULL) AS runs_without_price,
        sum(node_hours * gpus)::DOUBLE AS gpu_hours,
        count(DISTINCT session_id) FILTER (gpus IS NULL) AS sessions_without_gpus
    FROM session_money
    LEFT JOIN gpus USING (session_id)
    GROUP BY target, provenance
)
SELECT
    target, provenance,
    coalesce(labs, 0) AS labs,
    coalesce(runs, 0) AS runs,
    coalesce(requests_ok, 0) AS requests_ok,
    coalesce(output_tokens, 0) AS output_tokens,
    coalesce(confirmed, 0) AS confirmed,
    coalesce(refuted, 0) AS refuted,
    coalesce(inconclusive, 0) AS inconclusive,
    usd,
    coalesce(runs_without_price, 0) AS runs_without_price,
    gpu_hours,
    coalesce(sessions_without_gpus, 0) AS sessions_without_gpus
FROM ran
FULL JOIN cost USING (target, provenance)
ORDER BY target, provenance;
