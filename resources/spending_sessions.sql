-- What has each session on $target cost in each period, as estimated and as billed? One row per session and period in which
-- it was up, or has a cost; periods are $starts and $ends. A cost whose time lies partly outside counts by the share of its
-- time that lies inside. NULL in `estimated_usd`: it has no estimate yet, or no price was known for all of it.
-- `billed_usd`: settled bills alone. `priority`: NULL until it is known which nodes it held. All periods in one answer,
-- since most of the time goes into opening the lake's files.
WITH periods AS (
    -- By number: in January a month and its year begin at the same moment.
    SELECT
        unnest(range(len($starts))) AS period,
        unnest($starts::TIMESTAMPTZ[]) AS period_start,
        unnest($ends::TIMESTAMPTZ[]) AS period_end
),
sessions AS (
    SELECT
        session_id,
        any_value(lab) AS lab,
        any_value(variant) AS variant,
        any_value(run_id) AS run_id,
        any_value(provenance) AS provenance,
        any_value(sku) AS sku,
        any_value(nodes) AS nodes,
        any_value(time_scale) AS time_scale,
        min(requested_at) AS requested_at,
        min(ready_at) AS ready_at,
        any_value(cold_start_s) AS cold_start_s,
        any_value(first_token_s) AS first_token_s,
        max(released_at) AS released_at,
        max(recorded_at) AS recorded_at
    FROM stack_sessions
    WHERE target = $target
    GROUP BY session_id
),
signs AS (
    -- When a session was last heard of: each of its steps is published as it ends.
    SELECT session_id, max(recorded_at) AS recorded_at FROM events WHERE target = $target GROUP BY session_id
),
held AS (
    -- Of nodes of both kinds the dearer.
    SELECT session_id, min(priority) AS priority FROM node_time WHERE target = $target GROUP BY session_id
),
costs AS (
    SELECT
        period, session_id, x_state, x_bill_state, usd,
        ChargePeriodStart >= period_start AND ChargePeriodEnd <= period_end AS whole,
        CASE
            WHEN ChargePeriodEnd <= ChargePeriodStart
                THEN (ChargePeriodStart >= period_start AND ChargePeriodStart < period_end)::INT
            ELSE greatest(0, epoch(least(ChargePeriodEnd, period_end)) - epoch(greatest(ChargePeriodStart, period_start)))
                / (epoch(ChargePeriodEnd) - epoch(ChargePeriodStart))
        END AS share
    FROM cost_current CROSS JOIN periods
    WHERE target = $target
),
sums AS (
    SELECT
        period, session_id, x_state,
        CASE WHEN count(*) = count(usd)
            THEN sum(CASE WHEN whole THEN usd ELSE (usd * share)::DECIMAL(18, 9) END) END AS usd,
        bool_and(x_bill_state = 'settled') AS settled,
        sum(share) > 0 AS inside
    FROM costs
    GROUP BY period, session_id, x_state
)
SELECT
    p.period,
    s.*,
    held.priority,
    greatest(s.recorded_at, signs.recorded_at) AS heard_of_at,
    estimated.session_id IS NOT NULL AS has_estimate,
    estimated.usd AS estimated_usd,
    CASE WHEN billed.settled THEN billed.usd END AS billed_usd
FROM sessions AS s CROSS JOIN periods AS p
LEFT JOIN signs USING (session_id)
LEFT JOIN held USING (session_id)
LEFT JOIN sums AS estimated
    ON estimated.session_id = s.session_id AND estimated.period = p.period
    AND estimated.x_state = 'estimated'
LEFT JOIN sums AS billed
    ON billed.session_id = s.session_id AND billed.period = p.period AND billed.x_state = 'billed'
WHERE (s.requested_at < p.period_end AND coalesce(s.released_at, p.period_end) >= p.period_start)
    OR coalesce(estimated.inside, false)
ORDER BY s.requested_at, s.session_id, p.period;
