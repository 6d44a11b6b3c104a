-- Over all labs before L72, for how many GPU-hours was a stack up while no request ran? Cold starts are apart.
SELECT
    CASE WHEN count(*) = count(gpus) THEN coalesce(sum(gpu_hours), 0) END AS hours,
    count(DISTINCT session_id) FILTER (gpus IS NULL) || ' sessions did not record their GPUs' AS gap
FROM idle_intervals
WHERE target = $target AND lab < 'L72' AND (gpus IS NULL OR gpus > 0) AND kind <> 'cold_start'
