-- Over all labs on GPUs before L72, what did their cold starts cost?
SELECT
    CASE WHEN count(*) = count(gpus) THEN sum(usd) END AS usd,
    CASE
        WHEN count(*) = count(gpus) THEN 'no lab before L72 has a cost on target ' || $target
        ELSE count(DISTINCT session_id) FILTER (gpus IS NULL) || ' sessions did not record their GPUs'
    END AS gap
FROM idle_intervals
WHERE target = $target AND lab < 'L72' AND (gpus IS NULL OR gpus > 0) AND kind = 'cold_start'
