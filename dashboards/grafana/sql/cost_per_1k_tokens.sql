-- What do 1,000 tokens cost at each concurrency, on each machine type? One row per number of users and machine type: the
-- median of the stages of the newest run of each lab and variant, in USD. `machine` says whether they were measured.
SELECT
    t.users::VARCHAR AS users,
    s.sku || ' (' || t.provenance || ')' AS machine,
    median(t.usd_per_1k_tokens)::DOUBLE AS usd
FROM stage_table AS t
SEMI JOIN latest_run USING (session_id)
JOIN (SELECT DISTINCT session_id, sku FROM stack_sessions WHERE sku IS NOT NULL) AS s USING (session_id)
WHERE t.target = '${target}' AND t.users IS NOT NULL AND t.usd_per_1k_tokens IS NOT NULL
GROUP BY t.users, s.sku, t.provenance
ORDER BY t.users, machine;
