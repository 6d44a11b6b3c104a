-- What have nodes of ours on $target cost in each period that no session accounts for, as the scale-to-zero sensor saw them?
-- One row per period and lab that held them, NULL where none or several did; periods are $starts and $ends. A look holds
-- until the next, at most for three minutes: what happened while nobody looked is not told. `unpriced`: looks at pools
-- without a known price. A session that nobody closed accounts for them while its run is one of $live, which have a good
-- lease; else until $lease_ttl after it was last heard of.
WITH periods AS (
    -- By number: in January a month and its year begin at the same moment.
    SELECT
        unnest(range(len($starts))) AS period,
        unnest($starts::TIMESTAMPTZ[]) AS period_start,
        unnest($ends::TIMESTAMPTZ[]) AS period_end
),
looks AS (
    SELECT pool, tick_at, any_value(usd_per_h) AS usd_per_h, any_value(held_by) AS held_by
    FROM gpu_decisions
    WHERE target = $target AND nodes > 0
    GROUP BY pool, tick_at
),
timed AS (
    SELECT
        *, least(180.0, coalesce(epoch(lead(tick_at) OVER (PARTITION BY pool ORDER BY tick_at)) - epoch(tick_at), 60.0))
            AS lasted_s
    FROM looks
),
signs AS (
    SELECT session_id, max(recorded_at) AS recorded_at FROM events WHERE target = $target GROUP BY session_id
),
sessions AS (
    SELECT
        lab,
        min(requested_at) AS requested_at,
        -- NULL: it is up.
        coalesce(
            max(released_at),
            CASE WHEN NOT list_contains($live::VARCHAR[], any_value(run_id))
                THEN greatest(max(s.recorded_at), max(signs.recorded_at)) + $lease_ttl::INTERVAL END
        ) AS over_at
    FROM stack_sessions AS s LEFT JOIN signs USING (session_id)
    WHERE s.target = $target
    GROUP BY lab, session_id
)
SELECT
    period,
    CASE WHEN len(held_by) = 1 AND held_by[1] <> 'by-hand' THEN held_by[1] END AS lab,
    coalesce(sum(usd_per_h * lasted_s / 3600.0), 0)::DECIMAL(18, 6) AS usd,
    count(*) FILTER (usd_per_h IS NULL) AS unpriced
FROM timed CROSS JOIN periods
WHERE tick_at >= period_start AND tick_at < period_end
    AND NOT EXISTS (
        FROM sessions AS s
        WHERE list_contains(timed.held_by, s.lab)
            AND timed.tick_at >= s.requested_at AND timed.tick_at < coalesce(s.over_at, period_end)
    )
GROUP BY ALL
ORDER BY period, lab;
