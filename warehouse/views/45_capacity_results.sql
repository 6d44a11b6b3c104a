-- What would each mix of nodes have served, and for how much? One row per session, `reclaims` step and scenario.
-- Two parts are composed. How many replicas were up, and for how long: the spells that were drawn. What a replica does when
-- so many carry the same traffic: the session's own stages at that rate, of whichever step. `served`: a first token within
-- 2 s, and 80 ms for each one after it (as measures/goodput_2s_80ms.sql). Nothing is served where no replica is up, and the
-- minute after a change is taken as any other: how a queue builds up and drains is left out. NULL where the session has no
-- stage at a rate that occurs, or where a price is not known.
CREATE VIEW capacity_results AS
WITH scenarios AS (
    SELECT DISTINCT session_id, step, requests_per_s, on_demand_nodes + spot_nodes AS nodes FROM capacity_spells
),
replicas AS (
    -- Of `up` replicas each has its share of the traffic.
    SELECT
        c.session_id, c.step, c.up,
        count(*) FILTER (r.outcome = 'ok' AND r.ttft_s <= 2.0 AND coalesce(r.tpot_s, 0) <= 0.080) / count(*) AS served,
        c.up * any_value(s.output_tokens / s.duration_s) AS tokens_per_s
    FROM (SELECT *, unnest(range(1, nodes + 1)) AS up FROM scenarios) AS c
    JOIN load_stages AS s ON s.session_id = c.session_id AND abs(s.offered_per_s * c.up - c.requests_per_s) < 1e-6
    JOIN requests AS r ON r.session_id = s.session_id AND r.step = s.step AND r.stage = s.stage
    -- Else the failed ones alone would be left, and nothing served.
    ANTI JOIN client_faults AS f ON f.session_id = s.session_id AND f.step = s.step AND f.stage = s.stage
    WHERE r.valid OR r.outcome NOT IN ('ok', 'cut')
    GROUP BY c.session_id, c.step, c.up
),
needed AS (
    -- The fewest replicas that serve 99 % of the traffic.
    SELECT session_id, step, min(up) AS replicas_needed FROM replicas WHERE served >= 0.99 GROUP BY session_id, step
),
spells AS (
    SELECT
        c.*, c.on_demand_up + c.spot_up AS up, n.replicas_needed,
        CASE WHEN c.on_demand_up + c.spot_up = 0 THEN 0 ELSE r.served END AS served,
        CASE WHEN c.on_demand_up + c.spot_up = 0 THEN 0 ELSE r.tokens_per_s END AS tokens_per_s,
        c.hours * (
            CASE c.on_demand_nodes WHEN 0 THEN 0 ELSE c.on_demand_nodes * c.on_demand_usd END
            + CASE c.spot_nodes WHEN 0 THEN 0 ELSE (c.spot_up + c.spot_starting) * c.spot_usd END
        )::DOUBLE AS usd
    FROM capacity_spells AS c
    LEFT JOIN replicas AS r ON r.session_id = c.session_id AND r.step = c.step AND r.up = c.on_demand_up + c.spot_up
    LEFT JOIN needed AS n ON n.session_id = c.session_id AND n.step = c.step
),
months AS (
    SELECT
        session_id, step, position, month,
        CASE WHEN count(*) = count(served) THEN sum(hours * served) / sum(hours) END AS served,
        CASE WHEN count(*) = count(usd) THEN sum(usd) END AS usd
    FROM spells
    GROUP BY session_id, step, position, month
),
-- The mean of the months, with the 95 % interval of Student's t; up to 24 months.
means AS (
    SELECT
        session_id, step, position,
        CASE WHEN count(*) = count(served) THEN avg(served) END AS served_share,
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
         2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069][count(*) - 1] * stddev_samp(served) / sqrt(count(*)) AS reach
    FROM months
    GROUP BY session_id, step, position
),
pieces AS (
    -- A spell by the clock hours that it lies in.
    SELECT
        session_id, step, position, hour,
        least(hour + 1, started_h + hours) - greatest(hour, started_h) AS piece_h, served
    FROM (
        SELECT *, unnest(range(floor(started_h)::BIGINT, ceil(started_h + hours)::BIGINT)) AS hour FROM spells
    )
),
worst AS (
    SELECT session_id, step, position, CASE WHEN count(*) = count(served) THEN min(served) END AS worst_hour_share
    FROM (
        SELECT session_id, step, position, hour,
            CASE WHEN count(*) = count(served) THEN sum(piece_h * served) / sum(piece_h) END AS served
        FROM pieces
        WHERE piece_h > 0
        GROUP BY session_id, step, position, hour
    )
    GROUP BY session_id, step, position
)
SELECT
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id, s.step,
    s.position, s.scenario, s.band, s.reclaims_per_hour, s.together, s.cold_start_s, s.wait_s,
    s.on_demand_nodes, s.spot_nodes, s.requests_per_s,
    any_value(s.replicas_needed) AS replicas_needed,
    count(DISTINCT s.month) AS months,
    any_value(m.served_share) AS served_share,
    -- DuckDB's greatest and least pass NULL over; here it stays.
    CASE WHEN any_value(m.served_share) IS NOT NULL THEN greatest(any_value(m.served_share - m.reach), 0) END
        AS served_share_low,
    CASE WHEN any_value(m.served_share) IS NOT NULL THEN least(any_value(m.served_share + m.reach), 1) END
        AS served_share_high,
    any_value(w.worst_hour_share) AS worst_hour_share,
    CASE WHEN any_value(s.replicas_needed) IS NOT NULL
        THEN coalesce(sum(s.hours) FILTER (s.up < s.replicas_needed), 0) * 60 / count(DISTINCT s.month)
    END AS minutes_below_capacity,
    sum(s.hours * s.on_demand_up) / sum(s.hours) AS on_demand_nodes_paid,
    sum(s.hours * (s.spot_up + s.spot_starting)) / sum(s.hours) AS spot_nodes_paid,
    sum(s.hours * s.spot_up) / nullif(sum(s.hours * s.spot_nodes), 0) AS spot_availability,
    CASE WHEN count(*) = count(s.usd) THEN sum(s.usd) / sum(s.hours) END AS usd_per_hour,
    CASE WHEN count(*) = count(s.usd) AND count(*) = count(s.tokens_per_s)
        THEN sum(s.usd) / nullif(sum(s.hours * 3600 * s.tokens_per_s) / 1000, 0)
    END AS usd_per_1k_output_tokens
FROM spells AS s
JOIN means AS m ON m.session_id = s.session_id AND m.step = s.step AND m.position = s.position
JOIN worst AS w ON w.session_id = s.session_id AND w.step = s.step AND w.position = s.position
GROUP BY
    s.lab, s.variant, s.trial, s.target, s.engine, s.provenance, s.pace, s.time_scale, s.run_id, s.session_id, s.step,
    s.position, s.scenario, s.band, s.reclaims_per_hour, s.together, s.cold_start_s, s.wait_s,
    s.on_demand_nodes, s.spot_nodes, s.requests_per_s;
