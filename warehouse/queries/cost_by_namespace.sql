-- What did each lab's namespace cost, by estimate and by bill, and how much of it served requests? The dearest first.
SELECT
    target, namespace, cost_center, phase, provenance, runs,
    round(gpu_hours, 3) AS gpu_hours,
    round(usd_estimated, 4) AS usd_estimated,
    round(usd_billed, 4) AS usd_billed,
    round(delta_percent, 2) AS delta_percent,
    round(idle_share, 3) AS idle_share,
    round(efficiency, 3) AS efficiency,
    round(usd_per_request, 6) AS usd_per_request
FROM cost_by_namespace
ORDER BY target, usd_estimated DESC NULLS LAST, namespace;
