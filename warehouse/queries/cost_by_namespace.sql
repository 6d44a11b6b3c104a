-- What did each lab's namespace cost, by estimate and by bill, and how much of it served requests? The dearest first.
-- The difference to the bill is that of the sessions that have one.
SELECT
    target, lab, namespace, pace, cost_center, phase,
    string_agg(DISTINCT provenance, ', ' ORDER BY provenance) AS provenance,
    count(DISTINCT run_id) AS runs,
    CASE WHEN count(*) = count(gpu_hours) THEN round(sum(gpu_hours), 3) END AS gpu_hours,
    CASE WHEN count(*) = count(usd_estimated) THEN round(sum(usd_estimated), 4) END AS usd_estimated,
    round(sum(usd_billed), 4) AS usd_billed,
    round(100 * (sum(usd_billed) / nullif(sum(usd_estimated) FILTER (usd_billed IS NOT NULL), 0) - 1)::DOUBLE, 2)
        AS delta_percent,
    round(sum(idle_hours) / nullif(sum(node_hours), 0), 3) AS idle_share,
    CASE WHEN count(*) = count(usd_estimated)
        THEN round((sum(usd_served) / nullif(sum(usd_estimated), 0))::DOUBLE, 3)
    END AS efficiency,
    CASE WHEN count(*) = count(usd_estimated) THEN round(sum(usd_estimated)::DOUBLE / nullif(sum(requests_ok), 0), 6) END
        AS usd_per_request
FROM namespace_cost
GROUP BY target, lab, namespace, pace, cost_center, phase
ORDER BY target, usd_estimated DESC NULLS LAST, lab, pace;
