-- When was a node paid for while no request was in flight? One row per such interval of each released session, in stack
-- time, and one for its cold start, which is told apart. `node_hours` and `usd` are those that the session was charged, evenly
-- over its time: where its nodes are there all the time, its idle intervals add up to the `idle` part of its cost.
--
-- kind: `cold_start`; `before_load`, `between_loads` and `after_load` of the session's requests; `in_stage`, where a rate
-- left a pause; `no_load`, a session that was sent no request. `gpu_covered` is the share of the interval, but for its first
-- minute in which the load before may still be seen, that lies between two samples of the GPU's utilisation. These are
-- taken within stages alone, so for most intervals it is 0: what the GPU did is not known, and not that it did nothing.
CREATE VIEW idle_intervals AS
WITH sessions AS (
    SELECT *, ready_at + to_microseconds((1e6 * coalesce(first_token_s, 0) / time_scale)::BIGINT) AS warm_at
    FROM stack_sessions
    WHERE state = 'closed'
    QUALIFY row_number() OVER (PARTITION BY session_id ORDER BY recorded_at DESC) = 1
),
charged AS (
    -- Of shared nodes a share, of several kinds their mean.
    SELECT
        session_id,
        sum(PricingQuantity)::DOUBLE AS node_hours,
        CASE WHEN count(*) = count(usd) THEN sum(usd)::DOUBLE / nullif(sum(PricingQuantity)::DOUBLE, 0) END
            AS usd_per_node_hour
    FROM cost_current
    WHERE x_state = 'estimated'
    GROUP BY session_id
),
nodes AS (
    SELECT
        s.session_id,
        coalesce(
            c.node_hours * 3600 / nullif(coalesce(s.cold_start_s, 0) + s.held_s - coalesce(s.first_token_s, 0), 0),
            s.nodes
        ) AS nodes,
        c.usd_per_node_hour
    FROM sessions AS s
    LEFT JOIN charged AS c USING (session_id)
),
loads AS (
    SELECT session_id, min(sent_at) AS first_sent_at, max(finished_at) AS last_finished_at
    FROM requests
    GROUP BY session_id
),
spans AS (
    -- What is not idle: each request while the session was warm; and its two ends, of no length.
    SELECT s.session_id, greatest(r.sent_at, s.warm_at) AS began_at, least(r.finished_at, s.released_at) AS over_at
    FROM requests AS r
    JOIN sessions AS s USING (session_id)
    WHERE r.finished_at > s.warm_at AND r.sent_at < s.released_at
    UNION ALL
    SELECT session_id, unnest([warm_at, released_at]), unnest([warm_at, released_at]) FROM sessions
),
gaps AS (
    SELECT
        session_id,
        max(over_at) OVER (
            PARTITION BY session_id ORDER BY began_at, over_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS started_at,
        began_at AS ended_at
    FROM spans
),
idle AS (
    SELECT
        g.session_id, g.started_at, g.ended_at,
        CASE
            WHEN l.session_id IS NULL THEN 'no_load'
            WHEN g.ended_at <= l.first_sent_at THEN 'before_load'
            WHEN g.started_at >= l.last_finished_at THEN 'after_load'
            WHEN EXISTS (
                FROM load_stages AS t
                WHERE t.session_id = g.session_id AND t.started_at <= g.started_at AND t.ended_at >= g.ended_at
            ) THEN 'in_stage'
            ELSE 'between_loads'
        END AS kind,
        epoch_us(g.ended_at) - epoch_us(g.started_at) AS wall_us
    FROM gaps AS g
    LEFT JOIN loads AS l USING (session_id)
    WHERE g.started_at < g.ended_at
),
intervals AS (
    SELECT i.session_id, i.kind, i.started_at, i.ended_at, i.wall_us / 1e6 * s.time_scale AS duration_s
    FROM idle AS i
    JOIN sessions AS s USING (session_id)
    UNION ALL BY NAME
    SELECT session_id, 'cold_start' AS kind, requested_at AS started_at, warm_at AS ended_at, cold_start_s AS duration_s
    FROM sessions
    WHERE cold_start_s > 0
),
gpu AS (
    -- Too short an interval for an alert needs no second signal.
    SELECT
        i.session_id, i.started_at, max(m.value) AS gpu_utilisation_max,
        (epoch(max(m.sampled_at)) - epoch(min(m.sampled_at))) * any_value(m.time_scale) / any_value(i.duration_s - 60)
            AS gpu_covered
    FROM intervals AS i
    JOIN metric_samples AS m
        ON m.session_id = i.session_id AND m.sampled_at <= i.ended_at
        AND m.sampled_at >= i.started_at + to_microseconds((60e6 / m.time_scale)::BIGINT)
    WHERE m.measure = 'gpu_utilisation' AND i.duration_s > 120 AND i.kind <> 'cold_start'
    GROUP BY i.session_id, i.started_at
)
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id,
    s.sku, s.gpus, i.kind, i.started_at, i.ended_at, i.duration_s,
    n.nodes * i.duration_s / 3600 AS node_hours,
    n.nodes * s.gpus * i.duration_s / 3600 AS gpu_hours,
    n.nodes * i.duration_s / 3600 * n.usd_per_node_hour AS usd,
    coalesce(g.gpu_covered, 0) AS gpu_covered,
    g.gpu_utilisation_max
FROM intervals AS i
JOIN sessions AS s USING (session_id)
JOIN nodes AS n USING (session_id)
LEFT JOIN gpu AS g ON g.session_id = i.session_id AND g.started_at = i.started_at AND i.kind <> 'cold_start';
