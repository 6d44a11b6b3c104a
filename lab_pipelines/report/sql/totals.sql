-- How much has been run so far, kept apart by target and provenance? Money is that of all sessions, also of those whose run
-- was cut or has nothing else to tell; `usd` counts what has a price.
WITH ran AS (
    SELECT
        target, provenance,
        count(DISTINCT lab) AS labs,
        count(DISTINCT run_id) AS runs,
        coalesce(sum(requests_ok), 0)::BIGINT AS requests_ok,
        coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens
    FROM run_overview
    GROUP BY target, provenance
),
cost AS (
    SELECT
        target, provenance, sum(usd) AS usd, count(DISTINCT run_id) FILTER (usd IS NULL) AS runs_without_price
    FROM session_money
    GROUP BY target, provenance
)
SELECT
    target, provenance,
    coalesce(labs, 0) AS labs,
    coalesce(runs, 0) AS runs,
    coalesce(requests_ok, 0) AS requests_ok,
    coalesce(output_tokens, 0) AS output_tokens,
    usd,
    coalesce(runs_without_price, 0) AS runs_without_price
FROM ran
FULL JOIN cost USING (target, provenance)
ORDER BY target, provenance;
