-- For which share of the idle GPU-hours of all labs before L72 is it not known what the GPU did, so that an alert on two
-- signals could not be replayed?
SELECT
    CASE WHEN count(*) = count(idle_gpu_hours) THEN sum(unknown_hours) / nullif(sum(idle_gpu_hours), 0) END AS share,
    CASE WHEN count(*) = count(idle_gpu_hours) THEN 'there was no idle hour' ELSE 'some runs did not record their GPUs' END
        AS gap
FROM idle_alerts
WHERE target = $target AND lab < 'L72' AND after_min = 15 AND gpu_below_percent = 1
