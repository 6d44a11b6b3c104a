-- How much has been run so far, kept apart by target and provenance? `usd` counts the priced runs alone.
SELECT
    target, provenance,
    count(DISTINCT lab) AS labs,
    count(*) AS runs,
    sum(requests_ok)::BIGINT AS requests_ok,
    sum(output_tokens)::BIGINT AS output_tokens,
    sum(usd) AS usd,
    count(*) - count(usd) AS runs_without_price
FROM run_overview
GROUP BY target, provenance
ORDER BY target, provenance;
