-- How many GPU-hours was each kind of machine paid for while no request ran, lab by lab, and what did they cost? The dearest
-- first. `gpu_hours` is NULL where a run did not record its GPUs.
SELECT
    target, lab, pace, sku, kind,
    string_agg(DISTINCT provenance, ', ' ORDER BY provenance) AS provenance,
    count(DISTINCT session_id) AS sessions,
    CASE WHEN count(*) = count(gpu_hours) THEN round(sum(gpu_hours), 4) END AS gpu_hours,
    CASE WHEN count(*) = count(usd) THEN round(sum(usd), 4) END AS usd,
    round(max(duration_s) / 60, 1) AS longest_min
FROM idle_intervals
WHERE gpus IS NULL OR gpus > 0
GROUP BY target, lab, pace, sku, kind
HAVING sum(duration_s) >= 1
ORDER BY target, usd DESC NULLS LAST, lab, kind;
