-- Which ten labs cost the most on a target, over all their runs, and which share of it paid for serving? The bill
-- where it has come in dollars, else the estimate.
SELECT
    m.lab AS "the lab",
    count(DISTINCT m.session_id) AS "sessions",
    sum(m.node_hours)::DOUBLE AS "node-hours",
    CASE WHEN count(*) = count(m.usd) THEN sum(m.usd)::DOUBLE END AS "USD",
    100 * (sum(m.usd) FILTER (m.part = 'serve') / nullif(sum(m.usd), 0))::DOUBLE AS "paid for serving, %",
    $target AS target, m.provenance, list(DISTINCT m.run_id ORDER BY m.run_id) AS run_id,
    (SELECT max(c.recorded_at) FROM cost_records AS c WHERE c.target = $target AND c.lab = m.lab) AS recorded_at
FROM session_money AS m
WHERE m.target = $target
GROUP BY m.lab, m.provenance
ORDER BY "USD" DESC NULLS LAST, m.lab
LIMIT 10;
