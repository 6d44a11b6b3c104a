-- Within which time did 99 of 100 requests get their first token, over all months of the lab's own scenario? Each state of
-- the pool counts by how long it lasted; a request while no replica is up never gets one. No value where more than one in
-- a hundred got none.
WITH spells AS (
    SELECT on_demand_up + spot_up AS up, any_value(requests_per_s) AS requests_per_s, sum(hours) AS hours
    FROM capacity_spells WHERE session_id = $session_id AND position = 0 GROUP BY up
),
seen AS (
    SELECT r.ttft_s, p.hours / count(*) OVER (PARTITION BY p.up) AS weight
    FROM spells AS p
    JOIN load_stages AS s ON abs(s.offered_per_s * p.up - p.requests_per_s) < 1e-6
    JOIN requests AS r USING (session_id, step, stage)
    -- Else the failed ones alone would be left.
    ANTI JOIN client_faults AS f ON f.session_id = s.session_id AND f.step = s.step AND f.stage = s.stage
    WHERE p.up > 0 AND s.session_id = $session_id AND (r.valid OR r.outcome NOT IN ('ok', 'cut'))
),
ordered AS (SELECT ttft_s, sum(weight) OVER (ORDER BY ttft_s NULLS LAST) AS below FROM seen)
SELECT
    min(ttft_s) FILTER (below >= 0.99 * (SELECT sum(hours) FROM spells)) AS s,
    'more than one request in a hundred never got a first token, or a rate that occurs has no stage' AS gap
FROM ordered
