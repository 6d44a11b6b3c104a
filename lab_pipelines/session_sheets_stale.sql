-- Whose costs are newer than their sheet? One row per closed session and state of its costs. Sessions that no sheet was
-- ever made of are left out: their run has not come that far, or was cut.
WITH costs AS (
    SELECT session_id, x_state AS state, max(recorded_at) AS costed_at
    FROM cost_records
    WHERE target = $target AND ($lab IS NULL OR lab = $lab)
    GROUP BY session_id, x_state
),
sheets AS (
    SELECT session_id, coalesce(state, 'estimated') AS state, max(recorded_at) AS written_at
    FROM finops_sheet
    WHERE target = $target AND ($lab IS NULL OR lab = $lab)
    GROUP BY session_id, coalesce(state, 'estimated')
)
SELECT s.*, c.state AS costs_state
FROM stack_sessions AS s
JOIN costs AS c USING (session_id)
LEFT JOIN sheets AS h ON h.session_id = c.session_id AND h.state = c.state
SEMI JOIN sheets AS made ON made.session_id = s.session_id
WHERE s.state = 'closed' AND (h.written_at IS NULL OR h.written_at < c.costed_at)
ORDER BY c.state, s.lab, s.run_id, s.requested_at;
