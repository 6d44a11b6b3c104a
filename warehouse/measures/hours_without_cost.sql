-- How many node-hours on this target could no rule place: of machines without a price, or of released sessions without
-- a cost?
SELECT
    coalesce((
        SELECT sum(node_hours) FROM session_cost
        WHERE target = $target AND state = 'estimated' AND usd IS NULL
    ), 0)
    + coalesce((
        SELECT sum(nodes * (coalesce(cold_start_s, 0) + held_s) / 3600) FROM stack_sessions AS s
        WHERE target = $target AND state = 'closed'
            AND NOT EXISTS (FROM cost_records AS c WHERE c.session_id = s.session_id)
    ), 0)
