-- What is the least that 1K tokens cost on each machine type at each concurrency, over everything that was tried there?
SELECT
    s.target, s.provenance, r.sku, s.users,
    min(s.usd_per_1k_tokens) AS usd_per_1k_tokens,
    arg_min(s.lab || ' ' || s.variant, s.usd_per_1k_tokens) AS configuration,
    count(DISTINCT (s.lab, s.variant)) AS configurations
FROM stage_table AS s
SEMI JOIN latest_run USING (session_id)
JOIN run_overview AS r USING (session_id)
WHERE s.users IS NOT NULL AND s.profile IN ('ramp', 'constant') AND s.usd_per_1k_tokens IS NOT NULL
GROUP BY s.target, s.provenance, r.sku, s.users
ORDER BY s.target, s.provenance, r.sku, s.users;
