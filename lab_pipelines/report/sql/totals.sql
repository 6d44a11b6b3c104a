-- How much has been run so far, kept apart by target and provenance? `usd` counts what has a price.
SELECT
    target, provenance,
    count(DISTINCT lab) AS labs,
    count(DISTINCT run_id) AS runs,
    coalesce(sum(requests_ok), 0)::BIGINT AS requests_ok,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    sum(usd) AS usd,
    count(DISTINCT run_id) FILTER (usd IS NULL) AS runs_without_price
FROM run_overview
GROUP BY target, provenance
ORDER BY target, provenance;
