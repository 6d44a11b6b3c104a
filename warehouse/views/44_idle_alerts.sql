-- What would an alert on idleness have done, had it released the stack? One row per session on GPUs and rule: after how
-- many idle minutes it fires, on which signals, and below which GPU utilisation in percent. Runs that were marked invalid
-- have none; hours of GPUs are NULL where a run did not record its GPUs.
--
-- Only an interval after the last request is waste: the alert saves what is left of it. In any other the stack was needed
-- again, or was held for something else than requests, and the alarm is a false one. A rule on two signals never fires
-- where the GPU's samples cover less than nine tenths of the time; `unknown_hours` are the idle hours that it could not
-- judge. A cold start raises no alarm, since an engine that is not up has no series; `cold_starts` counts those that a
-- rule would take for idleness which reads a missing series as zero.
CREATE VIEW idle_alerts AS
WITH rules AS (
    SELECT after_min, signals, gpu_below_percent
    FROM (SELECT unnest([5, 15, 30, 60]) AS after_min)
    CROSS JOIN (
        SELECT
            unnest(['requests', 'requests and GPU', 'requests and GPU']) AS signals,
            unnest([NULL, 1, 5]) AS gpu_below_percent
    )
),
judged AS (
    SELECT
        i.lab, i.variant, i.trial, i.target, i.engine, i.provenance, i.pace, i.time_scale, i.run_id, i.session_id,
        i.sku, i.kind, i.gpu_hours, i.usd, i.gpu_covered >= 0.9 AS is_known,
        r.after_min, r.signals, r.gpu_below_percent,
        i.duration_s >= 60 * r.after_min AS is_long,
        r.gpu_below_percent IS NULL OR (i.gpu_covered >= 0.9 AND i.gpu_utilisation_max < r.gpu_below_percent)
            AS is_seen,
        greatest(i.duration_s - 60 * r.after_min, 0) / i.duration_s AS rest
    FROM idle_intervals AS i
    CROSS JOIN rules AS r
    WHERE (i.gpus IS NULL OR i.gpus > 0) AND i.run_id NOT IN (SELECT run_id FROM run_marks)
)
SELECT
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
    sku, after_min, signals, gpu_below_percent,
    CASE WHEN count(*) = count(gpu_hours) THEN coalesce(sum(gpu_hours) FILTER (kind <> 'cold_start'), 0) END
        AS idle_gpu_hours,
    CASE WHEN count(*) = count(usd) THEN coalesce(sum(usd) FILTER (kind <> 'cold_start'), 0) END AS idle_usd,
    CASE WHEN count(*) = count(gpu_hours)
        THEN coalesce(sum(gpu_hours * rest) FILTER (kind = 'after_load' AND is_long AND is_seen), 0)
    END AS saved_gpu_hours,
    CASE WHEN count(*) = count(usd)
        THEN coalesce(sum(usd * rest) FILTER (kind = 'after_load' AND is_long AND is_seen), 0)
    END AS saved_usd,
    count(*) FILTER (kind <> 'cold_start' AND is_long AND is_seen) AS alarms,
    count(*) FILTER (kind NOT IN ('cold_start', 'after_load') AND is_long AND is_seen) AS false_alarms,
    count(*) FILTER (kind = 'cold_start' AND is_long) AS cold_starts,
    CASE
        WHEN gpu_below_percent IS NULL THEN 0
        WHEN count(*) = count(gpu_hours)
            THEN coalesce(sum(gpu_hours) FILTER (kind <> 'cold_start' AND NOT is_known), 0)
    END AS unknown_hours
FROM judged
GROUP BY
    lab, variant, trial, target, engine, provenance, pace, time_scale, run_id, session_id,
    sku, after_min, signals, gpu_below_percent;
